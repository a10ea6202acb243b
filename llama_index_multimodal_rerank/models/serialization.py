"""Read the tensors of a weights file, without ever running code from it; and write one."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from .errors import CheckpointError

_DOWNLOAD_AGAIN = "Delete it and download it again."


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a ``.safetensors`` file or a PyTorch checkpoint (``.pth``, ``.pt``, ``.bin``).

    The format is told by the content. Files in the safetensors and in the zip format that
    PyTorch has written since 1.6 are memory-mapped, so that reading takes no memory of its own; older ones
    are read whole. Pickled objects other than tensors are refused, never executed.

    Args:
        path: the weights file.

    Returns:
        Tensors on the CPU by key, in the dtype of the file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is empty, damaged, unsafe, or not a flat mapping from names to tensors.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file.")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty. {_DOWNLOAD_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder, or download "
            f"the file itself."
        )
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_torch(path)
    raise CheckpointError(
        f"{path} is no weights file: it begins with {head[:16]!r}; expected a safetensors file or a PyTorch "
        f"checkpoint. {_DOWNLOAD_AGAIN}"
    )


def write_weights(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors.

    The file appears under its name only when it is complete, so tensors may be written over the file they
    are mapped from.

    Args:
        tensors: tensors by key, contiguous, on the CPU, none sharing memory.
        path: the file, ending in ``.safetensors``.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        safetensors.torch.save_file(dict(tensors), unfinished, metadata={"format": "pt"})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load_file(path))
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file, perhaps a broken download: {error}. "
            f"{_DOWNLOAD_AGAIN}"
        ) from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":  # newer torch.load goes by this name
        raise CheckpointError(f"{path} is a PyTorch checkpoint, not a safetensors file. Rename it to .pth.")
    is_zip = zipfile.is_zipfile(path)
    if is_zip and (packed := _compressed(path)):
        raise CheckpointError(
            f"{path} is no PyTorch checkpoint: {packed} in it is compressed, and PyTorch compresses nothing."
        )
    try:
        # the format before PyTorch 1.6 is no zip file and cannot be memory-mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds pickled objects that are not tensors, or is damaged. It was not unpickled, "
            f"because that can run any code. If you trust the file, load its state dict yourself and write "
            f"the tensors with safetensors.torch.save_file; otherwise download it again. PyTorch: {error}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(
            f"{path} is not a readable PyTorch checkpoint, perhaps a broken download: {error}. "
            f"{_DOWNLOAD_AGAIN}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a state dict of tensors.")
    others = {key: type(value).__name__ for key, value in content.items() if not torch.is_tensor(value)}
    if others:
        raise CheckpointError(
            f"{path} is not a flat state dict: beside or instead of tensors it holds "
            f"{', '.join(f'{key!r} ({kind})' for key, kind in list(others.items())[:8])}. If the weights "
            f"are nested under a key such as 'state_dict', save that part as a file of its own."
        )
    if odd := {key: kind for key, tensor in content.items() if (kind := _oddity(tensor)) is not None}:
        raise CheckpointError(
            f"{path} holds tensors of other kinds than plain numbers in memory: "
            f"{', '.join(f'{key!r} ({kind})' for key, kind in list(odd.items())[:8])}. Write the weights "
            "with safetensors.torch.save_file."
        )
    return {key: tensor.detach() for key, tensor in content.items()}  # of parameters, the numbers


def _compressed(path: Path) -> str | None:
    """Return a compressed entry of a zip archive: a small one may hold gigabytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # torch says what is wrong with it
    return next((entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)


def _oddity(tensor: torch.Tensor) -> str | None:
    if tensor.layout is not torch.strided:
        return str(tensor.layout)
    if tensor.device.type != "cpu":
        return str(tensor.device)
    return str(tensor.dtype) if tensor.is_quantized else None
