"""The reference numbers of MagicLens, and models with the seeded weights they were computed with."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from llama_index_multimodal_rerank.models.hub import CONFIG_NAME, TOKENIZER_FILES
from llama_index_multimodal_rerank.models.magiclens import MagicLens, MagicLensConfig, MagicLensModel
from llama_index_multimodal_rerank.models.magiclens.modeling import meta_model
from llama_index_multimodal_rerank.models.magiclens.processing import TOKENIZER_FOLDER, MagicLensTokenizer
from llama_index_multimodal_rerank.models.magiclens.state_dict import Weights, fill_model
from llama_index_multimodal_rerank.models.magiclens.upstream_keys import parameters

from .flax_writer import pickled_tree
from .golden import golden_root, load_seeded_weights, read_json
from .magiclens_config import read_config

GOLDEN = golden_root("magiclens") / "magiclens"
IMAGES = GOLDEN / "images"
CHECKPOINTS = GOLDEN / "checkpoints"
CASES: dict[str, Any] = read_json(GOLDEN / "cases.json")
TOLERANCES: dict[str, float] = {
    name: value for name, value in CASES["tolerances"].items() if isinstance(value, float)
}
TRACE_TOLERANCE = 2e-4
"""Of the steps in between; from the specification."""


@functools.cache
def _seeded_weights() -> ModuleType:
    return load_seeded_weights(GOLDEN)


def cases(model: str) -> list[dict[str, Any]]:
    return list(CASES["models"][model]["cases"])


def models(*, full_size: bool, tokenizer: bool = True) -> list[str]:
    """Names of the set's models: small or as large as a released one; with a tokenizer or only ids."""
    return [
        name
        for name, section in CASES["models"].items()
        if (config(name).text.num_hidden_layers >= 12) == full_size
        and (section["tokenizer"] is not None) == tokenizer
    ]


@functools.cache
def golden(model: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / CASES["models"][model]["golden"]) as arrays:
        return dict(arrays)


def manifest(model: str) -> dict[str, Any]:
    found: dict[str, Any] = _seeded_weights().load_manifest(CASES["models"][model]["manifest"], GOLDEN)
    return found


@functools.cache
def config(model: str) -> MagicLensConfig:
    return read_config(model, read_json(GOLDEN / CASES["models"][model]["config"]))


def seeded_array(model: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The reference's array of a key."""
    return np.asarray(_seeded_weights().seeded_array(key, shape, CASES["models"][model]["weights_seed"]))


def seeded_weights(model: str, scale: Mapping[str, float] | None = None) -> Weights:
    """The seeded weights in our names and layout; ``scale`` is a case's ``weight_scale``."""
    by_name = {parameter.name: parameter for parameter in parameters(config(model))}

    def read(name: str) -> torch.Tensor:
        parameter = by_name[name]
        factor = np.float32((scale or {}).get(parameter.key, 1.0))
        array = np.asarray(seeded_array(model, parameter.key, parameter.shape) * factor)
        return parameter.to_torch(torch.from_numpy(array).reshape(parameter.shape)).contiguous()

    return Weights(config(model), tuple(by_name), read)


def seeded_model(
    model: str, scale: Mapping[str, float] | None = None, *, dtype: torch.dtype = torch.float32
) -> MagicLens:
    """The model with seeded weights, on the CPU."""
    weights = seeded_weights(model, scale)
    module = meta_model(weights.config)
    digest = fill_model(module, weights, device=torch.device("cpu"), dtype=dtype)
    tokenizer = MagicLensTokenizer.from_folder(tokenizer_folder(model), weights.config.text)
    return MagicLens(module, tokenizer, weights_sha256=digest)


def seeded_module(model: str) -> MagicLensModel:
    """The module with seeded weights in float32, for a set's model that has no tokenizer."""
    weights = seeded_weights(model)
    module = meta_model(weights.config)
    fill_model(module, weights, device=torch.device("cpu"), dtype=torch.float32)
    return module


def tokenizer_folder(model: str) -> Path:
    """The set's tokenizer; that of the package, where the set has none of its own."""
    folder = GOLDEN / str(CASES["models"][model]["tokenizer"])
    return folder if folder.is_dir() else TOKENIZER_FOLDER


def write_folder(folder: Path, model: str, *, name: str = "model.pkl") -> Path:
    """A model as :meth:`MagicLens.from_pretrained` finds it on disk: a checkpoint in the released format."""
    folder.mkdir(parents=True, exist_ok=True)
    config(model).to_json_file(folder / CONFIG_NAME)
    for file in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_folder(model) / file, folder / file)
    entries = manifest(model)["entries"]
    with (folder / name).open("wb") as file:
        for piece in pickled_tree(
            {entry["key"]: tuple(entry["shape"]) for entry in entries},
            lambda key, shape: seeded_array(model, key, shape),
        ):
            file.write(piece)
    return folder


TINY = tuple(models(full_size=False))
FULL = tuple(models(full_size=True))
NO_TOKENIZER = tuple(models(full_size=False, tokenizer=False))
INDEX: dict[str, dict[str, Any]] = {
    entry["file"]: entry for entry in read_json(CHECKPOINTS / "index.json")["files"]
}
"""Facts about the set's checkpoint files, by name."""

WHOLE_CHECKPOINT = next(CHECKPOINTS / name for name, entry in INDEX.items() if "model" in entry)
"""A model of the set as a file, and by its name in the set."""

WHOLE_MODEL: str = INDEX[WHOLE_CHECKPOINT.name]["model"]


def assert_close(vector: Any, expected: Any) -> None:
    """Embeddings of the float32 model are equal up to the tolerance of the golden set."""
    np.testing.assert_allclose(np.asarray(vector), np.asarray(expected), atol=TOLERANCES["embedding"], rtol=0)
