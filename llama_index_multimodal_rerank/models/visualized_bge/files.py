"""From the name of a Visualized BGE model to its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import CheckpointError, ModelFilesError
from ..hub import CONFIG_NAME, TOKENIZER_FILES, HubOptions, fetch, local_path, weights_in
from ..serialization import read_weights
from .configuration import BASE_EN_V1_5, M3, VisualizedBGEConfig

WEIGHTS_REPO = "BAAI/bge-visualized"
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_WORD_EMBEDDINGS = "bge_embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Release:
    """Where the files of a released model lie.

    Attributes:
        config: its configuration.
        weights_name: file name in ``BAAI/bge-visualized``.
        text_repo: repository of its text model, which has the tokenizer.
    """

    config: VisualizedBGEConfig
    weights_name: str
    text_repo: str


_BASE = Release(BASE_EN_V1_5, "Visualized_base_en_v1.5.pth", "BAAI/bge-base-en-v1.5")
_M3 = Release(M3, "Visualized_m3.pth", "BAAI/bge-m3")
RELEASES: Mapping[str, Release] = {
    WEIGHTS_REPO: _BASE,
    "BAAI/bge-visualized-base-en-v1.5": _BASE,
    "BAAI/bge-visualized-m3": _M3,
    _BASE.weights_name: _BASE,
    _M3.weights_name: _M3,
}


@dataclass(frozen=True)
class ModelFiles:
    """A model as it lies on disk.

    Attributes:
        config: its configuration.
        weights: the file of its weights.
        tensors: its tensors by upstream key, memory-mapped where the format allows.
        tokenizer_folder: folder with its tokenizer.
    """

    config: VisualizedBGEConfig
    weights: Path
    tensors: dict[str, torch.Tensor]
    tokenizer_folder: Path


def open_model_files(model_name: str | os.PathLike[str], hub: HubOptions) -> ModelFiles:
    """Find a model, download what is missing, and open it.

    Args:
        model_name: a name of :data:`RELEASES`; or a weights file; or a folder with one. A ``config.json``
            beside a weights file is read, else the file must be one of the released ones. Tokenizer files
            beside it are used, else those of the released text model.
        hub: how to ask the hub.

    Raises:
        ModelFilesError: files are missing and cannot be downloaded, or the name is unknown.
        CheckpointError: the weights file cannot be read.
        ValueError: ``config.json`` cannot be understood, or a revision is given for a path.
    """
    path = local_path(os.fspath(model_name), hub)
    if path is not None:
        return _open_local(weights_in(path, _WEIGHTS_SUFFIXES) if path.is_dir() else path, hub)
    release = RELEASES.get(os.fspath(model_name))
    if release is None:
        raise ModelFilesError(
            f"There is no model {os.fspath(model_name)!r}: it is neither a file or folder on this machine "
            f"nor one of {', '.join(RELEASES)}."
        )
    wanted = [*_tokenizer_of(release), (WEIGHTS_REPO, release.weights_name)]
    *tokenizer, weights = fetch(wanted, hub, weights_repo=WEIGHTS_REPO)
    return ModelFiles(release.config, weights, read_weights(weights), tokenizer[0].parent)


def _open_local(weights: Path, hub: HubOptions) -> ModelFiles:
    tensors = read_weights(weights)
    config_file = weights.with_name(CONFIG_NAME)
    release = _release_of(tensors)
    if config_file.is_file():
        config = VisualizedBGEConfig.from_json_file(config_file)
    elif release is not None:
        config = release.config
    else:
        shape = tuple(tensors[_WORD_EMBEDDINGS].shape) if _WORD_EMBEDDINGS in tensors else "missing"
        raise CheckpointError(
            f"{weights} has no {CONFIG_NAME} beside it and is not one of the released models: its "
            f"{_WORD_EMBEDDINGS} is {shape}, theirs are "
            f"{' and '.join(str(_word_shape(known.config)) for known in (_BASE, _M3))}."
        )
    if weights.with_name(TOKENIZER_FILES[0]).is_file():
        return ModelFiles(config, weights, tensors, weights.parent)
    if release is None:
        raise ModelFilesError(
            f"{weights.parent} has no {TOKENIZER_FILES[0]}; put the tokenizer of the model there."
        )
    tokenizer = fetch(_tokenizer_of(release), hub, weights_repo=WEIGHTS_REPO)
    return ModelFiles(config, weights, tensors, tokenizer[0].parent)


def _release_of(tensors: Mapping[str, torch.Tensor]) -> Release | None:
    words = tensors.get(_WORD_EMBEDDINGS)
    for release in (_BASE, _M3):
        if words is not None and tuple(words.shape) == _word_shape(release.config):
            return release
    return None


def _word_shape(config: VisualizedBGEConfig) -> tuple[int, int]:
    return config.text.vocab_size, config.text.hidden_size


def _tokenizer_of(release: Release) -> list[tuple[str, str]]:
    return [(release.text_repo, name) for name in TOKENIZER_FILES]
