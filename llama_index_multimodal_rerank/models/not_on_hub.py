"""What the user reads where the files of a model are neither on this machine nor to be had from the hub."""

from __future__ import annotations

from collections.abc import Sequence


def describe_missing_model(
    wanted: str,
    error: Exception,
    *,
    commands: Sequence[str],
    folder_holds: str,
    cache_folder: str | None = None,
    revision: str | None = None,
) -> str:
    """Return the text of the error: what was wanted, why it is not there, and how to get it.

    Args:
        wanted: the model, as the user named it, or its files.
        error: what the hub's client raised.
        commands: arguments of ``hf download`` that fetch it, such as ``"BAAI/bge-m3"``; one command each.
        folder_holds: what a folder must hold to be passed instead.
        cache_folder: the folder that was looked in; None for the hub's own cache.
        revision: the revision that was asked for.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    options = (f" --revision {revision}" if revision else "") + (
        f" --cache-dir {cache_folder}" if cache_folder else ""
    )
    lines = "\n".join(f"  hf download {command}{options}" for command in commands)
    return (
        f"{wanted} is neither a local folder nor complete in the cache folder "
        f"{cache_folder or HF_HUB_CACHE}, "
        f"and could not be downloaded ({type(error).__name__}: {error}). Where the hub can be reached, run\n"
        f"{lines}\nand take the cache folder along; or pass the path of a folder that holds {folder_holds}."
    )
