"""The page's filters: what of the metadata there is room for, and what was picked as LlamaIndex' filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from ..metadata_fields import MetadataField, Value

MAX_CHOICES = 8
MAX_RANGES = 4
"""How many of each the page has room for."""

_OF_FILES = ("file_", "image_", "creation_date", "last_modified", "last_accessed")
"""How names of metadata begin that are about files; they come last."""


@dataclass(frozen=True)
class FilterPanel:
    """What a collection can be filtered by on the page.

    Attributes:
        choices: fields of few different values, of which one picks some.
        ranges: fields of numbers, of which one gives the least and the largest.
    """

    choices: tuple[MetadataField, ...] = ()
    ranges: tuple[MetadataField, ...] = ()

    @classmethod
    def of(cls, fields: Sequence[MetadataField]) -> FilterPanel:
        """Choose the fields that tell pictures apart, at most those that there is room for."""
        by_use = sorted(fields, key=lambda field: field.key.startswith(_OF_FILES))  # stable
        choices = [field for field in by_use if len(field.values) > 1]
        ranges = [field for field in by_use if field.kind == "number" and field.low != field.high]
        return cls(tuple(choices[:MAX_CHOICES]), tuple(ranges[:MAX_RANGES]))

    def filters(
        self,
        picked: Sequence[Sequence[Value] | None],
        limits: Sequence[tuple[float | None, float | None]],
    ) -> MetadataFilters | None:
        """Return the filters for what was picked, all of which hold, or None if nothing was.

        Args:
            picked: for each of ``choices`` the values wanted; none of them stands for all.
            limits: for each of ``ranges`` the least and the largest number wanted; None for no limit.
        """
        filters: list[MetadataFilter | MetadataFilters] = []
        for field, values in zip(self.choices, picked, strict=False):
            if values:
                operator = FilterOperator.ANY if field.kind == "list" else FilterOperator.IN
                filters.append(MetadataFilter(key=field.key, value=list(values), operator=operator))  # type: ignore[arg-type]
        for field, (least, most) in zip(self.ranges, limits, strict=False):
            if least is not None:
                filters.append(MetadataFilter(key=field.key, value=least, operator=FilterOperator.GTE))
            if most is not None:
                filters.append(MetadataFilter(key=field.key, value=most, operator=FilterOperator.LTE))
        return MetadataFilters(filters=filters) if filters else None
