"""From a model's name to its files: on the Hugging Face hub, in its cache, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..not_on_hub import describe_missing_model
from .configuration import BASE_EN_V1_5, M3, VisualizedBGEConfig
from .errors import CheckpointError, ModelFilesError
from .serialization import read_weights

WEIGHTS_REPO = "BAAI/bge-visualized"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
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
class HubOptions:
    """How to ask the hub; see ``huggingface_hub.hf_hub_download``.

    Attributes:
        cache_folder: folder of the cache; None takes the usual one.
        revision: branch, tag or commit of the weights' repository.
        local_files_only: look into the cache alone; None does so where ``HF_HUB_OFFLINE`` is set.
        token: access token; None takes the one of ``hf auth login``.
    """

    cache_folder: str | None = None
    revision: str | None = None
    local_files_only: bool | None = None
    token: str | bool | None = None


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
    path = Path(model_name).expanduser()
    if str(model_name) and path.exists():  # Path("") is the current folder
        if hub.revision is not None:
            raise ValueError(
                f"revision={hub.revision!r} is for models of the hub; {path} is on this machine."
            )
        return _open_local(_weights_in(path) if path.is_dir() else path, hub)
    release = RELEASES.get(str(model_name))
    if release is None:
        raise ModelFilesError(
            f"There is no model {str(model_name)!r}: it is neither a file or folder on this machine nor one "
            f"of {', '.join(RELEASES)}."
        )
    *tokenizer, weights = _fetch([*_tokenizer_of(release), (WEIGHTS_REPO, release.weights_name)], hub)
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
    return ModelFiles(config, weights, tensors, _fetch(_tokenizer_of(release), hub)[0].parent)


def _release_of(tensors: Mapping[str, torch.Tensor]) -> Release | None:
    words = tensors.get(_WORD_EMBEDDINGS)
    for release in (_BASE, _M3):
        if words is not None and tuple(words.shape) == _word_shape(release.config):
            return release
    return None


def _word_shape(config: VisualizedBGEConfig) -> tuple[int, int]:
    return config.text.vocab_size, config.text.hidden_size


def _weights_in(folder: Path) -> Path:
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    found = sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS_SUFFIXES and file.is_file())
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in (found or sorted(folder.iterdir()))[:12]) or "nothing"
    raise ModelFilesError(
        f"The folder {folder} holds {len(found)} weights files; expected {WEIGHTS_NAME}, or exactly one file "
        f"ending in {', '.join(_WEIGHTS_SUFFIXES)}. Found: {names}. "
        f"{'Name the file instead of the folder.' if found else 'Put the weights there.'}"
    )


def _tokenizer_of(release: Release) -> list[tuple[str, str]]:
    return [(release.text_repo, name) for name in TOKENIZER_FILES]


def _fetch(wanted: Sequence[tuple[str, str]], hub: HubOptions) -> list[Path]:
    """Return the local paths of files, given as (repository, name), downloading those not in the cache."""
    import huggingface_hub

    try:
        return [
            Path(
                huggingface_hub.hf_hub_download(
                    repo,
                    name,
                    revision=hub.revision if repo == WEIGHTS_REPO else None,
                    cache_dir=hub.cache_folder,
                    local_files_only=bool(hub.local_files_only),
                    token=hub.token,
                )
            )
            for repo, name in wanted
        ]
    # OSErrors, others of the hub's client, and those of its HTTP library, which has changed between releases
    except Exception as error:
        raise ModelFilesError(_how_to_fetch(wanted, hub, error)) from error


def _how_to_fetch(wanted: Sequence[tuple[str, str]], hub: HubOptions, error: Exception) -> str:
    commands = []
    for repo in dict.fromkeys(repo for repo, _ in wanted):
        command = f"{repo} {' '.join(name for owner, name in wanted if owner == repo)}"
        revision = f" --revision {hub.revision}" if hub.revision and repo == WEIGHTS_REPO else ""
        commands.append(command + revision)
    return describe_missing_model(
        ", ".join(f"{name} of {repo}" for repo, name in wanted),
        error,
        commands=commands,
        folder_holds=f"the weights, {' and '.join(TOKENIZER_FILES)}",
        cache_folder=hub.cache_folder,
    )
