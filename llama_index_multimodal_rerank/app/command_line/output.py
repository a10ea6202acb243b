"""What commands print: lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...logs import one_line

if TYPE_CHECKING:
    from ..collections import Collection

FORMAT = 1
"""Of the JSON: keys may be added under one number; it goes up if a key is taken away or changed."""


def print_json(values: Mapping[str, Any]) -> None:
    """Print a JSON object, in ASCII: every terminal and every name of a file gets through."""
    sys.stdout.write(json.dumps({"format": FORMAT, **values}, indent=1, allow_nan=False) + "\n")


def print_lines(*lines: str) -> None:
    """Print lines."""
    for line in lines:
        sys.stdout.write(line + "\n")


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table; columns of numbers are flush right, the last is not filled up.

    Args:
        names: of the columns.
        rows: cells; None is shown as nothing, floats with three places.
    """
    cells = [list(names), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    right = [
        all(isinstance(row[column], (int, float, type(None))) for row in rows) for column in range(len(names))
    ]
    return [
        "  ".join(
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else one_line(str(value), 60)


def seconds_line(seconds: Mapping[str, float]) -> str:
    """Return the seconds of each stage that took a hundredth or more as a line."""
    parts = [f"{stage} {value:.2f}" for stage, value in seconds.items() if value >= 0.005]
    return f"Seconds: {', '.join(parts) or 'none'}."


def collection_json(collection: Collection) -> dict[str, Any]:
    """Return what is said of a collection."""
    return {
        "uri": collection.uri,
        "name": collection.source.name,
        "model": collection.models.embedding_name,
    }


def to_json(value: Any) -> Any:
    """Return a value of metadata for JSON; what is none becomes text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
