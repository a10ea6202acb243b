"""Checkpoints of the released architectures with seeded weights: as large and as slow, without a download.

The sizes, the tensors' names and the tokenizers are those of the tests, so a checkout is needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from llama_index_multimodal_rerank.reranking.prompts import (
    DEFAULT_CAPTION_PROMPT,
    DEFAULT_RANK_PROMPT,
    describe_query,
    list_format,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

from llama_index_multimodal_rerank.models.magiclens.configuration import RELEASED as MAGICLENS_RELEASED
from tests.support.magiclens_golden import FULL as MAGICLENS_FULL
from tests.support.magiclens_golden import TINY as MAGICLENS_TINY
from tests.support.magiclens_golden import config as magiclens_config
from tests.support.magiclens_golden import write_folder as write_magiclens
from tests.support.phi3_vision_golden import GOLDEN, read_json, seeded_weights
from tests.support.published_model import as_published
from tests.support.visualized_bge_golden import FULL_BASE, FULL_M3, NO_FULL_SIZE, TINY_BERT, write_folder

__all__ = [
    "as_published",
    "checkpoint_bytes",
    "magiclens_folder",
    "phi3_vision_folder",
    "visualized_bge_folder",
]

SHARD_BYTES = 2**30
STOP_TOKENS = ("<|endoftext|>", "<|end|>")
_QUESTIONS = " ".join(
    [
        DEFAULT_CAPTION_PROMPT.template,
        describe_query("", has_picture=True, caption="caption"),
        describe_query("a phone case with this", has_picture=True, caption=None),
        list_format(explain=True, declared=True),
    ]
)


def visualized_bge_folder(folder: Path, *, model: str = "base", tiny: bool = False) -> Path:
    """Write Visualized BGE as its authors release it, in float32, unless the folder is there; return it.

    Raises:
        ValueError: the folder is there, and the tiny model was asked for.
    """
    if not (folder / "config.json").exists():
        full = {"base": FULL_BASE, "m3": FULL_M3}[model]
        if not tiny and full is None:
            raise ValueError(NO_FULL_SIZE)
        return write_folder(folder, TINY_BERT if tiny else str(full))
    if tiny:
        raise ValueError(f"{folder} holds a checkpoint already; leave it out, or the tiny model")
    return folder


def magiclens_folder(folder: Path, *, model: str = "magiclens-base", tiny: bool = False) -> Path:
    """Write MagicLens in the released format, in float32, unless the folder is there; return it.

    Raises:
        ValueError: the folder is there, and the tiny model was asked for; or no golden set is of that size.
    """
    if not (folder / "config.json").exists():
        released = {config.name: config.fusion for config in MAGICLENS_RELEASED}[model]
        full = next((name for name in MAGICLENS_FULL if magiclens_config(name).fusion == released), None)
        if not tiny and full is None:
            raise ValueError(NO_FULL_SIZE)
        return write_magiclens(folder, MAGICLENS_TINY[0] if tiny else str(full))
    if tiny:
        raise ValueError(f"{folder} holds a checkpoint already; leave it out, or the tiny model")
    return folder


def phi3_vision_folder(folder: Path, *, layers: int | None = None, tiny: bool = False) -> Path:
    """Write Phi-3 Vision as it is released, in bfloat16 (8.3 GB), unless the folder is there; return it.

    The weights never end an answer: greedy generation always takes the tokens it may take, for all alike.

    Args:
        folder: where to write; about twice a shard of 1 GB is in memory at a time.
        layers: decoder layers to write. Default: all.
        tiny: the tests' tiny architecture instead.

    Raises:
        ValueError: the folder is there and holds another number of layers, or the tiny model was asked for.
    """
    name = "tiny" if tiny else "128k"
    config = dict(read_json(f"config_{name}.json"))
    if (folder / "config.json").exists():
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        if tiny or layers not in (None, found):
            raise ValueError(f"{folder} holds a checkpoint of {found} layers already; name another folder")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if layers is not None:
        config["num_hidden_layers"] = min(layers, config["num_hidden_layers"])
    stops = stop_tokens(write_processor(folder, tiny=tiny))
    shapes = {
        key: entry["shape"]
        for key, entry in read_json(f"manifest_{name}.json")["tensors"].items()
        if entry["in_checkpoint"] and _layer(key) < config["num_hidden_layers"]
    }
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(_shards(shapes)):
        file = f"model-{number:05}.safetensors"
        save_file({key: _tensor(key, shapes[key], stops) for key in keys}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(keys, file)
    total = 2 * sum(int(np.prod(shape)) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")  # last: it tells a whole folder
    return folder


def checkpoint_bytes(folder: Path) -> int:
    """Return the size of a checkpoint's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _layer(key: str) -> int:
    found = re.match(r"model\.layers\.(\d+)\.", key)
    return int(found[1]) if found else -1


def _shards(shapes: dict[str, list[int]]) -> Iterator[list[str]]:
    keys: list[str] = []
    size = 0
    for key, shape in shapes.items():
        keys.append(key)
        size += 2 * int(np.prod(shape))
        if size >= SHARD_BYTES:
            yield keys
            keys, size = [], 0
    if keys:
        yield keys


def _tensor(key: str, shape: list[int], stops: list[int]) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little")
    scale, shift = seeded_weights.scale_and_shift(key, shape)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(scale).add_(shift)
    if key == "lm_head.weight":
        values[stops] = 0  # the greatest of thousands of random logits is never the one that is 0
    return values.to(torch.bfloat16)


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end an answer of Phi-3 Vision."""
    return [tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, STOP_TOKENS)]


def write_processor(folder: Path, *, tiny: bool) -> PreTrainedTokenizerBase:
    """Write the files of Phi-3 Vision's processor, and return the tokenizer."""
    from transformers import AddedToken, PreTrainedTokenizerFast

    from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionImageProcessor, Phi3VisionProcessor

    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(GOLDEN / "tokenizer")
    if not tiny:
        # The tests' tokenizer spells nearly every word out. With the words of our questions in it, prompts
        # are about as long as with the released tokenizer.
        words = re.findall("[A-Za-z]{2,}", f"{DEFAULT_RANK_PROMPT.template} {_QUESTIONS}")
        tokenizer.add_tokens(
            [
                *(AddedToken(mark, normalized=False) for mark in (" >", " [", "[", "]", "(", ")", ":", "\n")),
                *(
                    AddedToken(word, single_word=True, lstrip=True, normalized=False)
                    for word in dict.fromkeys(words)
                ),
            ]
        )
    Phi3VisionProcessor(Phi3VisionImageProcessor(), tokenizer).save_pretrained(folder)
    return tokenizer
