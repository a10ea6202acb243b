"""The reference numbers, and models with the seeded weights they were computed with."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch

from llama_index_multimodal_rerank.models.visualized_bge import (
    TextConfig,
    VisionConfig,
    VisualizedBGEConfig,
)

from .golden import golden_root, load_seeded_weights, read_json

GOLDEN = golden_root("visualized_bge") / "visualized_bge"
IMAGES = GOLDEN / "images"
CASES: dict[str, Any] = read_json(GOLDEN / "cases.json")
# A batch or one by one, weights at other addresses: libraries add the same products in another order. In
# float32 the specification saw normalised embeddings move by 2e-7; the least of the mistakes that it lists
# moves them by 3e-6.
SAME = 2e-6


@functools.cache
def _seeded_weights() -> ModuleType:
    return load_seeded_weights(GOLDEN)


def cases(model: str) -> list[dict[str, Any]]:
    return CASES["models"][model]["cases"]


def case(model: str, case_id: str) -> dict[str, Any]:
    return next(case for case in cases(model) if case["id"] == case_id)


def case_of(model: str, kind: str, **facts: Any) -> dict[str, Any]:
    """The first case of a kind, with the model as it is, for which the facts hold."""
    facts = {"reference": "ok", "weight_scale": None, **facts}
    return next(
        case
        for case in cases(model)
        if case["kind"] == kind and all(case.get(name) == value for name, value in facts.items())
    )


@functools.cache
def golden(model: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / CASES["models"][model]["golden"]) as arrays:
        return dict(arrays)


def manifest(model: str) -> dict[str, Any]:
    return _seeded_weights().load_manifest(CASES["models"][model]["manifest"], GOLDEN)


def shapes(model: str) -> dict[str, tuple[int, ...]]:
    return {entry["key"]: tuple(entry["shape"]) for entry in manifest(model)["entries"]}


def config(model: str) -> VisualizedBGEConfig:
    return read_config(model, read_json(GOLDEN / CASES["models"][model]["config"]))


def read_config(model: str, data: Mapping[str, Any]) -> VisualizedBGEConfig:
    """Return the content of a set's ``config_*.json`` as our configuration."""
    text, vision = data["text"], data["vision"]
    return VisualizedBGEConfig(
        name=model,
        text=TextConfig(
            model_type=text["model_type"],
            vocab_size=text["vocab_size"],
            hidden_size=text["hidden_size"],
            num_hidden_layers=text["num_hidden_layers"],
            num_attention_heads=text["num_attention_heads"],
            intermediate_size=text["intermediate_size"],
            max_position_embeddings=text["max_position_embeddings"],
            type_vocab_size=text["type_vocab_size"],
            layer_norm_eps=text["layer_norm_eps"],
            pad_token_id=text["pad_token_id"],
            hidden_act=text["hidden_act"],
        ),
        vision=VisionConfig(
            hidden_size=vision["width"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["heads"],
            intermediate_size=vision["mlp_hidden"],
            patch_size=vision["patch_size"],
            projection_dim=vision["embed_dim"],
            image_size=vision["image_size"],
            layer_norm_eps=vision["layer_norm_eps"],
            rope_theta=vision["rope_theta"],
            rope_grid_size=vision["rope_pretrained_grid"],
        ),
    )


def _find(model_type: str, *, full_size: bool) -> str | None:
    texts = {model: config(model).text for model in CASES["models"]}
    return next(
        (
            model
            for model, text in texts.items()
            if text.model_type == model_type and (text.num_hidden_layers >= 12) == full_size
        ),
        None,
    )


# A set has a small model of each kind, and may have those of the released sizes.
TINY_BERT, TINY_XLMR = str(_find("bert", full_size=False)), str(_find("xlm-roberta", full_size=False))
FULL_BASE, FULL_M3 = _find("bert", full_size=True), _find("xlm-roberta", full_size=True)
TINY = (TINY_BERT, TINY_XLMR)
FULL = tuple(model for model in (FULL_BASE, FULL_M3) if model)
NO_FULL_SIZE = "the golden set has no model of this released size"


def _tensors(model: str, scale: dict[str, Any] | None) -> Iterator[tuple[str, torch.Tensor]]:
    seed = CASES["models"][model]["weights_seed"]
    for key, array in _seeded_weights().seeded_state_dict(manifest(model), seed, folder=GOLDEN):
        tensor = torch.from_numpy(np.array(array)).reshape(array.shape)
        if scale and key.startswith(scale["prefix"]) and key.endswith(tuple(scale["suffixes"])):
            tensor *= scale["factor"]
        yield key, tensor


def state_dict(
    model: str, *, dtype: torch.dtype = torch.float32, scale: dict[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    """The seeded checkpoint as the authors' code would write it; ``scale`` is a case's ``weight_scale``."""
    return {key: tensor.to(dtype) for key, tensor in _tensors(model, scale)}


def write_folder(
    folder: Path,
    model: str,
    *,
    weights: str = "model.safetensors",
    dtype: torch.dtype = torch.float32,
    scale: dict[str, Any] | None = None,
    source: Path | None = None,
) -> Path:
    """A model as :meth:`VisualizedBGE.from_pretrained` finds it on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(model, folder)
    config(model).to_json_file(folder / "config.json")
    if source is None:
        state = state_dict(model, dtype=dtype, scale=scale)
    else:  # already written in float32: quicker than drawing the weights again
        state = {key: tensor.to(dtype) for key, tensor in safetensors.torch.load_file(source).items()}
    if weights.endswith(".safetensors"):
        safetensors.torch.save_file(state, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder


def copy_tokenizer(model: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in (GOLDEN / CASES["models"][model]["tokenizer"]).iterdir():
        if file.name != "config.json":
            shutil.copyfile(file, folder / file.name)
