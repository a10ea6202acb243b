"""The reference numbers, and models with the seeded weights they were computed with."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
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

GOLDEN = Path(__file__).parents[1] / "golden" / "visualized_bge"
IMAGES = GOLDEN / "images"
CASES: dict[str, Any] = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))
TINY = ("tiny_bert", "tiny_xlmr")
# A batch or one by one, weights at other addresses: libraries add the same products in another order. In
# float32 the specification saw normalised embeddings move by 2e-7; the least of the mistakes that it lists
# moves them by 3e-6.
SAME = 2e-6


@functools.cache
def _seeded_weights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded_weights", GOLDEN / "seeded_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["seeded_weights"] = module
    spec.loader.exec_module(module)
    return module


def cases(model: str) -> list[dict[str, Any]]:
    return CASES["models"][model]["cases"]


def case(model: str, case_id: str) -> dict[str, Any]:
    return next(case for case in cases(model) if case["id"] == case_id)


@functools.cache
def golden(model: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / CASES["models"][model]["golden"]) as arrays:
        return dict(arrays)


def manifest(model: str) -> dict[str, Any]:
    return _seeded_weights().load_manifest(CASES["models"][model]["manifest"], GOLDEN)


def shapes(model: str) -> dict[str, tuple[int, ...]]:
    return {entry["key"]: tuple(entry["shape"]) for entry in manifest(model)["entries"]}


def config(model: str) -> VisualizedBGEConfig:
    data = json.loads((GOLDEN / CASES["models"][model]["config"]).read_text(encoding="utf-8"))
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
