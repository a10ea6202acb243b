"""From the name of a MagicLens model to its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelFilesError
from ..hub import CONFIG_NAME, TOKENIZER_FILES, WEIGHTS_NAME, HubOptions, fetch, local_path, weights_in
from .configuration import BASE, LARGE, MagicLensConfig
from .processing import TOKENIZER_FOLDER
from .state_dict import FLAX_SUFFIX, Weights, open_weights, save_weights

BUCKET = "gs://gresearch/magiclens/models"
RELEASED_FILES: Mapping[str, str] = {
    BASE.name: "magic_lens_clip_base.pkl",
    LARGE.name: "magic_lens_clip_large.pkl",
}
"""File in the authors' bucket, by the model's name."""

_SUFFIXES = (".safetensors", FLAX_SUFFIX)


@dataclass(frozen=True)
class ModelFiles:
    """A model as it lies on disk.

    Attributes:
        path: the file of its weights.
        weights: its tensors and configuration.
        tokenizer_folder: folder with its tokenizer.
    """

    path: Path
    weights: Weights
    tokenizer_folder: Path


def open_model_files(model_name: str | os.PathLike[str], hub: HubOptions) -> ModelFiles:
    """Find a model and open it.

    Args:
        model_name: a released file (``.pkl``), or a folder with one, or a folder that
            :meth:`MagicLens.save_pretrained` or :func:`convert_checkpoint` wrote; or ``magiclens-base`` or
            ``magiclens-large``, looked for under these names in the cache folder; or a repository on the hub
            with such a folder's files.
        hub: how to ask the hub, and where the cache folder is.

    Raises:
        ModelFilesError: files are missing; it says where to get them.
        CheckpointError: the weights file cannot be read, or does not fit.
        ValueError: ``config.json`` cannot be understood, or a revision is given for a path.
    """
    name = os.fspath(model_name)
    path = local_path(name, hub)
    if path is not None:
        return _open_local(weights_in(path, _SUFFIXES) if path.is_dir() else path)
    if name in RELEASED_FILES:
        return _open_local(_released_weights(name, hub))
    if name.count("/") != 1:
        raise ModelFilesError(
            f"There is no model {name!r}: it is neither a file or folder on this machine, nor one of "
            f"{', '.join(RELEASED_FILES)}, nor the id of a repository on the hub."
        )
    wanted = [(name, file) for file in (CONFIG_NAME, *TOKENIZER_FILES, WEIGHTS_NAME)]
    return _open_local(fetch(wanted, hub, weights_repo=name)[-1])


def convert_checkpoint(source: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Path:
    """Write a released ``.pkl`` file anew as safetensors, which loads without being read in full.

    Nothing is rounded: the tensors keep the types of the file, and embeddings and fingerprint stay the same.

    Args:
        source: the released file.
        folder: where to write to; default: beside the file, under the model's name (``magiclens-base``),
            where ``model_name="magiclens-base"`` finds it if the file lies in the cache folder.

    Returns:
        The folder, which :meth:`MagicLens.from_pretrained` takes as ``model_name``.

    Raises:
        CheckpointError: the file is damaged, or does not fit.
        FileNotFoundError: there is no such file.
    """
    files = _open_local(Path(source).expanduser())
    config = files.weights.config
    target = files.path.with_name(config.name) if folder is None else Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(files.tokenizer_folder / name, target / name)
    config.to_json_file(target / CONFIG_NAME)
    save_weights(files.weights, target / WEIGHTS_NAME)
    return target


def _open_local(path: Path) -> ModelFiles:
    config_file = path.with_name(CONFIG_NAME)
    config = MagicLensConfig.from_json_file(config_file) if config_file.is_file() else None
    has_tokenizer = path.with_name(TOKENIZER_FILES[0]).is_file()
    return ModelFiles(path, open_weights(path, config), path.parent if has_tokenizer else TOKENIZER_FOLDER)


def _released_weights(name: str, hub: HubOptions) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(hub.cache_dir or HF_HUB_CACHE).expanduser()
    file = RELEASED_FILES[name]
    for place in (cache / name / WEIGHTS_NAME, cache / file):
        if place.is_file():
            return place
    raise ModelFilesError(
        f"The weights of {name!r} are not on this machine: neither {file} nor a folder {name} is in {cache}. "
        f"The authors keep them in a bucket of Google Cloud Storage, not on the model hub. Fetch them with\n"
        f"  gcloud storage cp {BUCKET}/{file} {cache}/\n"
        f"(or gsutil cp, or a browser), or pass the path of the file wherever it lies: "
        f"model_name='/your/folder/{file}'. A folder with a converted checkpoint may be passed as well, or "
        f"the id of a repository on the hub that holds one."
    )
