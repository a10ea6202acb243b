"""The recorded reference numbers, and the tiny model they belong to."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from .golden import golden_root, load_seeded_weights

GOLDEN = golden_root("phi3_vision") / "phi3_vision"
REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "phi3_vision_hub"
# One row or many, a batch or one by one, weights at other addresses: libraries add the same products in
# another order. In float32 that moved logits of up to 4.5 by 1.9e-6, on three instruction sets. The least of
# the mistakes that the specification lists moves them by 2e-5.
SAME_LOGITS = 1e-5
NO_REFERENCE = f"the published configuration and tokenizer files are not at {REFERENCE}"


seeded_weights = load_seeded_weights(GOLDEN)


@cache
def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@cache
def read_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def picture(name: str) -> Image.Image:
    return Image.open(GOLDEN / "images" / f"{name}.png")


def pictures(names: list[str]) -> list[Image.Image]:
    return [picture(name) for name in names]


def expand_runs(runs: list[list[int]]) -> list[int]:
    return [token for token, count in runs for _ in range(count)]


def cases() -> list[dict[str, Any]]:
    return read_json("cases.json")["cases"]


def image_case() -> dict[str, Any]:
    """A case with pictures."""
    return next(case for case in cases() if case.get("images"))


def crossing_case() -> dict[str, Any]:
    """The case that grows past the original context while generating."""
    return next(case for case in cases() if "generated_without_cache" in case)


def tiny_state_dict() -> dict[str, torch.Tensor]:
    seed = read_json("cases.json")["weight_seed"]
    weights = seeded_weights.from_manifest(read_json("manifest_tiny.json"), seed)
    return {name: torch.from_numpy(values) for name, values in weights}


def write_tiny_checkpoint(folder: Path) -> Path:
    """Write the tiny model in the released layout: config.json and one safetensors file."""
    save_file(tiny_state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(read_json("config_tiny.json")), encoding="utf-8")
    return folder


def worst(found: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Return the greatest absolute difference; infinite where one is not a number."""
    found = found.detach().float().numpy() if isinstance(found, torch.Tensor) else found
    assert found.shape == expected.shape
    return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())
