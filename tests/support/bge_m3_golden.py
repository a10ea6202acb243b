"""A tiny BGE-M3 with seeded weights, and the lexical weights that FlagEmbedding computed with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from .golden import golden_root, load_seeded_weights

NAME = "bge_m3_sparse"


# Tokenizer and numbers belong together: both are of the folder that has this set.
ROOT = golden_root(NAME)
GOLDEN = ROOT / NAME


def read_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return content


def write_checkpoint(folder: Path, weights: str = "model.safetensors") -> Path:
    """Write the seeded model as a checkpoint of BGE-M3 is laid out.

    Args:
        folder: made if it does not exist.
        weights: ``model.safetensors`` or ``pytorch_model.bin``.
    """
    model = read_json("model.json")
    folder.mkdir(parents=True, exist_ok=True)
    for file in (ROOT / model["tokenizer"]).iterdir():
        if file.name != "config.json":
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(model["config"]), encoding="utf-8")
    encoder = dict(_tensors("", model["encoder"], model))
    if weights.endswith(".safetensors"):
        safetensors.torch.save_file(encoder, folder / weights, metadata={"format": "pt"})
    else:
        torch.save(encoder, folder / weights)
    for name, shapes in model["heads"].items():
        torch.save(dict(_tensors(f"{Path(name).stem}.", shapes, model)), folder / name)
    return folder


def _tensors(
    prefix: str, shapes: Mapping[str, Sequence[int]], model: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    module = load_seeded_weights(ROOT / "visualized_bge")
    for key, shape in shapes.items():
        exact_in_half_precision = module.seeded_array(prefix + key, shape, model["weights_seed"])
        yield key, torch.from_numpy(exact_in_half_precision * np.float32(model["weights_factor"]))
