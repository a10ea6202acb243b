"""Whether the values of a configuration can be those of a model, before anything is computed from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST_SIZE = 2**24
"""Largest number of rows, layers, pixels or whatever a configuration counts."""


def check_values(config: DataclassInstance, *, may_be_zero: Collection[str] = ()) -> None:
    """Check the fields of a frozen dataclass by their types; whole numbers are accepted for floats.

    Args:
        config: the configuration; its fields are of type ``int`` (a size, 1 to 2**24), ``float`` (positive
            and finite), ``str`` (not empty) or something else, which is not looked at.
        may_be_zero: fields of type ``int`` for which 0 is allowed.

    Raises:
        ValueError: with the field, its value and what is allowed.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if field.type == "int":
            least = 0 if field.name in may_be_zero else 1
            if not (number and isinstance(value, int) and least <= value <= LARGEST_SIZE):
                raise _wrong(config, field.name, value, f"a whole number from {least} to {LARGEST_SIZE}")
        elif field.type == "float":
            if not (number and 0 < value < math.inf):
                raise _wrong(config, field.name, value, "a positive number")
            object.__setattr__(config, field.name, float(value))
        elif field.type == "str" and not (isinstance(value, str) and value):
            raise _wrong(config, field.name, value, "a text")


def _wrong(config: object, name: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{type(config).__name__} has {name}={describe(value)}; expected {expected}.")


def describe(value: object) -> str:
    """Return a value as an error shows it, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
