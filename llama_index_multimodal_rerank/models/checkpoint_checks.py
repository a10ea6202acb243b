"""Whether the tensors of a file are those of a model; whatever does not fit is listed, all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from .errors import CheckpointError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_sizes(name: str, sizes: Mapping[str, int], tensors: Mapping[str, torch.Tensor]) -> None:
    """Check that a file is large enough for a model, before anything of the model's size is built.

    Args:
        name: the model's name.
        sizes: what the configuration counts, by its name there: layers (``num_hidden_layers``, with any words
            before it), of which each has tensors of its own, and rows and columns of tensors.
        tensors: the tensors of the file.

    Raises:
        CheckpointError: no tensor is that long, or there are fewer tensors than layers.
    """
    held = [tensor for tensor in tensors.values() if tensor.nbytes <= tensor.untyped_storage().nbytes()]
    longest = max((side for tensor in held if tensor.numel() for side in tensor.shape), default=0)
    for what, size in sizes.items():
        limit = len(tensors) if what.endswith("num_hidden_layers") else longest
        if size > limit:
            raise CheckpointError(
                f"The weights do not fit the model {name!r}: its configuration says {what} {size}, and the "
                f"file has {len(tensors)} tensors, the longest of {longest} rows or columns. Is this the "
                "file of another model?"
            )


def check_shapes(
    name: str,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    *,
    ignored: Collection[str] = (),
) -> None:
    """Check that a file holds the tensors of a model: none missing, none left over, all of the right shape.

    Args:
        name: the model's name.
        expected: shape of every tensor of the model, by key.
        found: shape of every tensor of the file, by key.
        ignored: keys that a file may hold beside those of the model.

    Raises:
        CheckpointError: with every missing key, unexpected key and wrong shape.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys() - set(ignored))
    wrong = [
        f"{key} is {tuple(found[key])}, expected {shape}"
        for key, shape in sorted(expected.items())
        if key in found and tuple(found[key]) != shape
    ]
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"The weights do not fit the model {name!r}."
            f"{_listing('missing keys', missing)}{_listing('unexpected keys', unexpected)}"
            f"{_listing('wrong shapes', wrong)}\nIs this the file of another model, or of another release?"
        )


def check_dtypes(found: Mapping[str, torch.dtype], *, ignored: Collection[str] = ()) -> None:
    """Check that tensors are floating point numbers.

    Args:
        found: type of every tensor of the file, by key.
        ignored: keys on which no embedding depends.

    Raises:
        CheckpointError: with every tensor of another type.
    """
    wrong = sorted(
        f"{key} is {dtype}" for key, dtype in found.items() if dtype not in FLOATS and key not in ignored
    )
    if wrong:
        raise CheckpointError(
            f"The weights are not floating point numbers.{_listing('wrong dtypes', wrong)}\n"
            f"Allowed are {', '.join(map(str, FLOATS))}; quantised files cannot be loaded."
        )


def _listing(title: str, entries: Iterable[str]) -> str:
    lines = list(entries)
    return "".join([f"\n{title} ({len(lines)}):", *(f"\n  {line}" for line in lines)]) if lines else ""
