"""What results can be narrowed down by: read off the metadata that is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

MAX_CHOICES = 8
MAX_RANGES = 4
"""How many of each the page has room for."""

_MAX_VALUES = 40
"""With more different words a choice is none that one can look through."""

_MAX_LENGTH = 60

_OF_FILES = ("file_", "image_", "creation_date", "last_", "rerank_", "retrieval_", "doc_id", "ref_doc_id", "_")
"""How names of metadata begin that says nothing about what a picture shows."""


@dataclass(frozen=True)
class Choice:
    """Metadata of few different words, of which one picks some.

    Attributes:
        key: its name.
        values: what occurs, sorted.
        is_list: whether each picture has a list of such words.
    """

    key: str
    values: tuple[str | bool, ...]
    is_list: bool = False


@dataclass(frozen=True)
class Range:
    """Metadata of numbers, of which one gives the least and the largest.

    Attributes:
        key: its name.
        low: least number that occurs.
        high: largest number that occurs.
    """

    key: str
    low: float
    high: float


@dataclass(frozen=True)
class Facets:
    """What a collection can be filtered by, at most what the page has room for."""

    choices: tuple[Choice, ...] = ()
    ranges: tuple[Range, ...] = ()

    def filters(
        self, picked: Sequence[Sequence[str | bool] | None], limits: Sequence[tuple[float | None, float | None]]
    ) -> MetadataFilters | None:
        """Return LlamaIndex' filters for what was picked, or None if nothing was.

        Args:
            picked: for each of ``choices`` the values wanted; none of them stands for all.
            limits: for each of ``ranges`` the least and the largest number wanted, None for no limit.
        """
        filters: list[MetadataFilter | MetadataFilters] = [
            _any_of(choice, values) for choice, values in zip(self.choices, picked, strict=False) if values
        ]
        for numbers, (low, high) in zip(self.ranges, limits, strict=False):
            for limit, operator in ((low, FilterOperator.GTE), (high, FilterOperator.LTE)):
                if limit is not None:
                    filters.append(MetadataFilter(key=numbers.key, value=limit, operator=operator))
        return MetadataFilters(filters=filters) if filters else None


def _any_of(choice: Choice, values: Sequence[str | bool]) -> MetadataFilter | MetadataFilters:
    if choice.is_list:
        return MetadataFilter(key=choice.key, value=list(values), operator=FilterOperator.ANY)  # type: ignore[arg-type]
    if all(isinstance(value, str) for value in values):
        return MetadataFilter(key=choice.key, value=list(values), operator=FilterOperator.IN)  # type: ignore[arg-type]
    return MetadataFilters(
        filters=[MetadataFilter(key=choice.key, value=value) for value in values],  # type: ignore[arg-type]
        condition=FilterCondition.OR,
    )


def facets_of(metadata: Iterable[Mapping[str, Any]]) -> Facets:
    """Find out what pictures can be filtered by.

    Args:
        metadata: of the pictures, or of many of them.
    """
    values: dict[str, list[Any]] = {}
    for each in metadata:
        for key, value in each.items():
            if value is not None and not key.startswith(_OF_FILES):
                values.setdefault(key, []).append(value)
    choices, ranges = [], []
    for key in sorted(values):
        if (choice := _choice(key, values[key])) is not None:
            choices.append(choice)
        elif (numbers := _range(key, values[key])) is not None:
            ranges.append(numbers)
    return Facets(tuple(choices[:MAX_CHOICES]), tuple(ranges[:MAX_RANGES]))


def _choice(key: str, values: list[Any]) -> Choice | None:
    is_list = all(isinstance(value, list) for value in values)
    words = [word for value in values for word in value] if is_list else values
    of_one_type = all(isinstance(word, str) for word in words) or all(isinstance(word, bool) for word in words)
    found = set(words) if of_one_type else set()
    if not 2 <= len(found) <= _MAX_VALUES or any(len(str(word)) > _MAX_LENGTH for word in found):
        return None
    return Choice(key, tuple(sorted(found)), is_list)


def _range(key: str, values: list[Any]) -> Range | None:
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    low, high = min(values), max(values)
    return Range(key, low, high) if low < high else None
