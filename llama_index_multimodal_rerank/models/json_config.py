"""A model's ``config.json``, strictly: every field is known, and none is missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .config_values import describe

C = TypeVar("C")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: it holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply to be a configuration.") from error
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}.")
    return data


def check_object(where: str, data: Any) -> Mapping[str, Any]:
    """Return ``data``, if it is a JSON object.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {describe(data)}; expected a JSON object.")
    return data


def write_json_object(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object, indented."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def build_dataclass(config_class: type[C], data: Mapping[str, Any]) -> C:
    """Make a dataclass of the fields of a JSON object.

    Raises:
        ValueError: a field is missing or unknown, or the class refuses a value.
    """
    fields = dataclasses.fields(config_class)  # type: ignore[arg-type]
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    check_fields(config_class.__name__, set(data), required=required, known={field.name for field in fields})
    return config_class(**data)


def check_fields(where: str, given: set[str], *, required: set[str], known: set[str]) -> None:
    """Check the names of fields.

    Raises:
        ValueError: some are missing or unknown.
    """
    # An unknown field may switch on something the model does not have: it must not be dropped.
    if missing := sorted(required - given):
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    if unknown := sorted(given - known):
        raise ValueError(
            f"{where} has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}."
        )


def check_heads(which: str, hidden_size: int, heads: int) -> None:
    """Check that a layer's width divides into its heads.

    Raises:
        ValueError: it does not.
    """
    if hidden_size % heads:
        raise ValueError(f"The {which} hidden_size {hidden_size} is not a multiple of its {heads} heads.")
