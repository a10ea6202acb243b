"""``price<20``: a filter on metadata, as people write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

_OPERATORS = {
    "==": FilterOperator.EQ,
    "=": FilterOperator.EQ,
    "!=": FilterOperator.NE,
    "<=": FilterOperator.LTE,
    "<": FilterOperator.LT,
    ">=": FilterOperator.GTE,
    ">": FilterOperator.GT,
    "~": FilterOperator.TEXT_MATCH,
    " in ": FilterOperator.IN,
    " not in ": FilterOperator.NIN,
    " has ": FilterOperator.CONTAINS,
}
OPERATORS = tuple(_OPERATORS)
"""What stands between key and value."""

_WRITTEN = re.compile(
    r"\s*(?P<key>[^\s=!<>~]+)\s*?(?P<operator>==|!=|<=|>=|=|<|>|~| not in | in | has )(?P<value>.*)", re.S
)
_HELP = (
    "write key, operator and value, such as price<20, kind=mug, title~leopard, 'kind in mug,shoe', "
    "'tags has new'; operators are " + " ".join(each.strip() for each in _OPERATORS)
)


class FilterTextError(ValueError):
    """A text that is no filter; the message says how one is written."""


def parse_filter(text: str) -> MetadataFilter:
    """Return the filter that a text stands for.

    A value that reads as a JSON number is one, ``true`` and ``false`` are 1 and 0, which the rows with these
    values match, and all else is text; write ``"20"`` with its quotes for the text 20. ``in`` and ``not in``
    take values with commas between.

    Example:
        >>> from llama_index_multimodal_rerank.app.filters import parse_filter
        >>> found = parse_filter("price<20")
        >>> found.key, found.operator.value, found.value
        ('price', '<', 20)
        >>> parse_filter("kind in mug,shoe").value
        ['mug', 'shoe']

    Args:
        text: key, operator, value.

    Raises:
        FilterTextError: it is none, or ``in`` stands before texts and numbers.
    """
    read = _WRITTEN.fullmatch(text)
    if read is None or not read["value"].strip():
        raise FilterTextError(f"{text!r} is no filter: {_HELP}")
    operator = _OPERATORS[read["operator"]]
    written = read["value"].strip()
    value: Any
    if operator in (FilterOperator.IN, FilterOperator.NIN):
        parts = [part.strip() for part in written.split(",") if part.strip()]
        if not parts:
            raise FilterTextError(f"{text!r} is no filter: {_HELP}")
        value = [_value(part) for part in parts]
        numbers = [part for part, each in zip(parts, value, strict=True) if not isinstance(each, str)]
        if 0 < len(numbers) < len(parts):
            raise FilterTextError(
                f"{text!r} compares with texts and numbers at once: for the text {numbers[0]} write "
                f'"{numbers[0]}", with quotes'
            )
    elif operator == FilterOperator.TEXT_MATCH:
        value = str(_value(written)) if written.startswith('"') else written
    else:
        value = _value(written)
    return MetadataFilter(key=read["key"], operator=operator, value=value)


def parse_filters(texts: Iterable[str]) -> MetadataFilters | None:
    """Return the filters that texts stand for, all of which hold; None if there is no text.

    Raises:
        FilterTextError: a text is no filter.
    """
    filters: list[MetadataFilter | MetadataFilters] = [parse_filter(text) for text in texts]
    return MetadataFilters(filters=filters) if filters else None


def _value(text: str) -> str | int | float:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (str, int, float)) else text
