"""A model's files on the Hugging Face hub, in its cache, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ModelFilesError
from .hub_reach import why_unreachable
from .not_on_hub import describe_missing_model

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class HubOptions:
    """How to ask the hub; see ``huggingface_hub.hf_hub_download``.

    Attributes:
        cache_folder: folder of the cache; None takes the usual one.
        revision: branch, tag or commit of the weights' repository.
        local_files_only: look into the cache alone; None does so where ``HF_HUB_OFFLINE`` is set.
        token: access token; None takes the one of ``hf auth login``.
    """

    cache_folder: str | os.PathLike[str] | None = None
    revision: str | None = None
    local_files_only: bool | None = None
    token: str | bool | None = None

    @property
    def cache_dir(self) -> str | None:
        """The folder of the cache, for libraries that take a string."""
        return None if self.cache_folder is None else os.fspath(self.cache_folder)


def local_path(model_name: str, hub: HubOptions) -> Path | None:
    """Return the path that a model's name is, or None where there is no such file or folder.

    Raises:
        ValueError: a revision is given for a path.
    """
    path = Path(model_name).expanduser()
    if not model_name or not path.exists():  # Path("") is the current folder
        return None
    if hub.revision is not None:
        raise ValueError(f"revision={hub.revision!r} is for models of the hub; {path} is on this machine.")
    return path


def weights_in(folder: Path, suffixes: Sequence[str]) -> Path:
    """Return the weights file of a folder: ``model.safetensors``, or the only file with one of the suffixes.

    Raises:
        ModelFilesError: there is none, or more than one.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    found = sorted(file for file in folder.iterdir() if file.suffix in suffixes and file.is_file())
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in (found or sorted(folder.iterdir()))[:12]) or "nothing"
    raise ModelFilesError(
        f"The folder {folder} holds {len(found)} weights files; expected {WEIGHTS_NAME}, or exactly one file "
        f"ending in {', '.join(suffixes)}. Found: {names}. "
        f"{'Name the file instead of the folder.' if found else 'Put the weights there.'}"
    )


def fetch(wanted: Sequence[tuple[str, str]], hub: HubOptions, *, weights_repo: str) -> list[Path]:
    """Return the local paths of files, downloading those not in the cache.

    Args:
        wanted: repository and name of every file.
        hub: how to ask the hub.
        weights_repo: the repository that the revision is of; of others the newest is taken.

    Where the hub cannot be reached at all, that is said at once: nothing is tried again.

    Raises:
        ModelFilesError: a file is not in the cache and cannot be downloaded.
    """
    import huggingface_hub

    unreachable = None if hub.local_files_only else why_unreachable()
    try:
        return [
            Path(
                huggingface_hub.hf_hub_download(
                    repo,
                    name,
                    revision=hub.revision if repo == weights_repo else None,
                    cache_dir=hub.cache_dir,
                    local_files_only=bool(hub.local_files_only or unreachable),
                    token=hub.token,
                )
            )
            for repo, name in wanted
        ]
    # OSErrors, others of the hub's client, and those of its HTTP library, which has changed between releases
    except Exception as error:
        reason = ConnectionError(unreachable) if unreachable else error
        raise ModelFilesError(_how_to_fetch(wanted, hub, weights_repo, reason)) from error


def _how_to_fetch(
    wanted: Sequence[tuple[str, str]], hub: HubOptions, weights_repo: str, error: Exception
) -> str:
    commands = []
    for repo in dict.fromkeys(repo for repo, _ in wanted):
        command = f"{repo} {' '.join(name for owner, name in wanted if owner == repo)}"
        revision = f" --revision {hub.revision}" if hub.revision and repo == weights_repo else ""
        commands.append(command + revision)
    return describe_missing_model(
        ", ".join(f"{name} of {repo}" for repo, name in wanted),
        error,
        commands=commands,
        folder_holds=f"the weights, {' and '.join(TOKENIZER_FILES)}",
        cache_folder=hub.cache_dir,
    )
