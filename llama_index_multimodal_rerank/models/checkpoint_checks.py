"""Whether the tensors of a file are those of a model; whatever does not fit is listed, all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from .errors import CheckpointError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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
