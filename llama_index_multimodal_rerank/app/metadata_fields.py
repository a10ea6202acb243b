"""What is known of the pictures of a collection: fields to filter by, with their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..schema.image_text import IMAGE_DIGEST_KEY

HIDDEN = frozenset({IMAGE_DIGEST_KEY, "file_path"})
"""Metadata that nobody filters by: digests, and where a file lies on this machine."""

MAX_VALUES = 50
"""A field of texts with more different values than this lists none."""

Value = str | int | float


@dataclass(frozen=True)
class MetadataField:
    """A key of metadata that can be filtered by.

    Attributes:
        key: its name.
        kind: ``"number"``, ``"text"``, or ``"list"`` (of texts or numbers).
        pictures: how many of the pictures looked at have it.
        low: the smallest number; None for others.
        high: the largest number; None for others.
        values: the different texts, sorted, or those in the lists; empty for numbers, and if there are more
            than ``MAX_VALUES``.
    """

    key: str
    kind: Literal["number", "text", "list"]
    pictures: int
    low: float | None = None
    high: float | None = None
    values: tuple[Value, ...] = ()


def metadata_fields(rows: Iterable[Mapping[str, Any]]) -> tuple[MetadataField, ...]:
    """Return the fields of metadata, in the order in which they appear; those of mixed kinds are left out.

    Args:
        rows: metadata of each picture.
    """
    found: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in HIDDEN and not key.startswith("_") and value is not None:
                found.setdefault(key, []).append(value)
    fields = (_field(key, values) for key, values in found.items())
    return tuple(field for field in fields if field is not None)


def _field(key: str, values: list[Any]) -> MetadataField | None:
    if all(isinstance(value, (int, float)) for value in values):  # True and False are 1 and 0
        return MetadataField(key, "number", len(values), float(min(values)), float(max(values)))
    if all(isinstance(value, str) for value in values):
        return MetadataField(key, "text", len(values), values=_listed(values))
    if all(isinstance(value, list) for value in values):
        members = [each for value in values for each in value]
        numbers = [isinstance(each, (int, float)) and not isinstance(each, bool) for each in members]
        if all(numbers) or all(isinstance(each, str) for each in members):  # a filter takes no others
            return MetadataField(key, "list", len(values), values=_listed(members))
    return None


def _listed(values: Iterable[Value]) -> tuple[Value, ...]:
    different = set(values)
    return tuple(sorted(different, key=str)) if len(different) <= MAX_VALUES else ()
