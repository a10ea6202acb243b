r"""Filter expressions for Milvus, in which every value is a value.

MilvusVectorStore (1.2.0) puts ids, keys and values between quotes as they are: a quote in one ends it, and
what follows is read as a part of the expression. It also turns some filters into others (NOT with one
filter, None, IS_EMPTY, TEXT_MATCH). Here they find the rows that LlamaIndex' own ``SimpleVectorStore``
finds, or are refused.

What Milvus Lite (3.2.2) and the servers from 2.3.5 on both read alike:

- ``"…"`` with a backslash before backslashes and quotes, and ``\n``, ``\r``, ``\t``.
- ``$meta["any key"]`` is metadata. Lite reads lists in metadata only under ``key``, without quotes.
- A comparison with a key that a row does not have is neither true nor false to some, and false to others:
  so ``exists`` comes first wherever a comparison is negated.
- ``exists`` is true of a null to some: so ``without_empty`` leaves nulls out of the rows that are written,
  and empty lists, which no expression tells from other values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from pymilvus import DataType

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = frozenset(
    {"and", "or", "not", "in", "like", "is", "null", "exists", "iso", "interval", "true", "false"}
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_WILDCARDS = re.compile(r"[%_\\]")
_FILTERED_COLUMNS = (
    DataType.BOOL, DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64, DataType.FLOAT,
    DataType.DOUBLE, DataType.VARCHAR, DataType.ARRAY,
)  # fmt: skip
_COMPARISONS = {
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}
_IN_LISTS = {FilterOperator.CONTAINS: "", FilterOperator.ANY: "_any", FilterOperator.ALL: "_all"}
_TAKE_LISTS = (FilterOperator.IN, FilterOperator.ANY, FilterOperator.ALL)
_TRUTHS = {0: "false", 1: "true"}
_NEGATIONS = {FilterOperator.NE: FilterOperator.EQ, FilterOperator.NIN: FilterOperator.IN}


class FilterError(ValueError):
    """A filter that Milvus cannot find the rows of; says what to write instead, nothing about the server."""


def quoted(value: object) -> str:
    """Return a string as an expression that is equal to it, whatever is in it.

    Raises:
        ValueError: it is no string, or holds half a character (a lone surrogate).
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a str, got {type(value).__name__} {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{value!r} holds half a character (a lone surrogate), which cannot be sent to Milvus"
        ) from error
    return f'"{value.translate(_ESCAPES)}"'


def literal(value: object) -> str:
    """Return a string, a number, or a list of such as an expression.

    Raises:
        ValueError: it is something else, or not finite, or an integer of more than 64 bits.
    """
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"Milvus compares integers of at most 64 bits, got {value}")
        return str(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"Milvus compares finite numbers, got {value}")
        return repr(float(value))
    return quoted(value)


def is_in(field: str, values: Sequence[object]) -> str:
    """Return the expression for a column of strings that holds one of the values.

    Raises:
        ValueError: one is no string.
    """
    return f"{field} in [{', '.join(map(quoted, values))}]"


def joined(operator: str, expressions: Sequence[str]) -> str:
    """Join expressions by ``and`` or ``or``, in halves of halves: servers fail where a hundred are nested."""
    if len(expressions) == 1:
        return expressions[0]
    middle = len(expressions) // 2
    return f"({joined(operator, expressions[:middle])} {operator} {joined(operator, expressions[middle:])})"


def without_empty(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out metadata that is None or an empty list: to filters, as if the key were not there.

    The node itself, which a row holds as JSON, keeps them.
    """
    return {
        key: value
        for key, value in row.items()
        if not (value is None or (isinstance(value, list) and not value))
    }


@dataclass(frozen=True)
class FilterExpressions:
    """Translates ``MetadataFilters`` for one collection.

    Attributes:
        columns: the fields of the collection's schema; all other keys are metadata.
        hiding: columns that hide metadata of the same name: id, text and vectors.
        lite: whether it is Milvus Lite that reads the expressions.
    """

    columns: Mapping[str, DataType]
    hiding: frozenset[str]
    lite: bool

    def expression(self, filters: MetadataFilters | None) -> str:
        """Return the expression for filters; ``""`` if there are none.

        Raises:
            ValueError: Milvus cannot find the rows that are meant; says what to write instead.
        """
        return self._group(filters, negated=False) if filters is not None and filters.filters else ""

    def _group(self, group: MetadataFilters, *, negated: bool) -> str:
        if not group.filters:
            raise ValueError("a MetadataFilters among the filters of another is empty: leave it out")
        each_negated = negated != (group.condition == FilterCondition.NOT)  # NOT: none of the filters matches
        parts = [
            self._group(part, negated=each_negated)
            if isinstance(part, MetadataFilters)
            else self._filter(part, negated=each_negated)
            for part in group.filters
        ]
        return joined("or" if (group.condition == FilterCondition.OR) != negated else "and", parts)

    def _filter(self, one: MetadataFilter, *, negated: bool) -> str:
        try:
            operator = _NEGATIONS.get(one.operator, one.operator)
            match = self._match(operator, one.key, one.value)
            if negated == (operator == one.operator):
                guard = "" if operator == FilterOperator.IS_EMPTY else self._guard(one.key)
                return f"not ({guard}{match})"
        except ValueError as error:
            raise FilterError(f"filter on {one.key!r}, {one.operator.name}: {error}") from None
        return match

    def _guard(self, key: str) -> str:
        return "" if key in self.columns else f"(exists {self._field(key)}) and "

    def _field(self, key: str) -> str:
        if key in self.hiding:
            raise ValueError(
                "in Milvus this is the node's own (its id, text or vector), and hides metadata of the same "
                "name. Give the metadata another name, such as 'item_id'. To find nodes by their ids, use "
                "node_ids."
            )
        if not key or _CONTROL.search(key):
            raise ValueError("no server finds a key that is empty or holds control characters")
        if key not in self.columns:
            return f"$meta[{quoted(key)}]"
        if self.columns[key] not in _FILTERED_COLUMNS:
            raise ValueError(f"a column of type {self.columns[key].name} cannot be searched by filters")
        return key

    def _match(self, operator: FilterOperator, key: str, value: Any) -> str:
        """Return the expression for rows that have the key and match; others may be found or not."""
        field = self._field(key)
        if operator == FilterOperator.IS_EMPTY:
            return self._is_empty(key, field)
        if value is None:
            raise ValueError("the value is None. To find rows without a value, use FilterOperator.IS_EMPTY.")
        if operator in _TAKE_LISTS and not isinstance(value, list):
            raise ValueError(f"the value must be a list, got {value!r}")
        if operator not in _TAKE_LISTS and isinstance(value, list):
            raise ValueError(f"the value must not be a list (IN, NIN, ANY and ALL take lists), got {value!r}")
        self._check_type(key, value)
        if operator in _COMPARISONS:
            return f"{field} {_COMPARISONS[operator]} {literal(value)}"
        if operator in (FilterOperator.EQ, FilterOperator.IN):
            return self._is_one_of(key, field, value if isinstance(value, list) else [value])
        if operator == FilterOperator.TEXT_MATCH:
            return self._holds_text(field, value)
        if operator in _IN_LISTS:
            return self._list_holds(operator, key, field, value)
        raise ValueError("Milvus has no such comparison")

    def _check_type(self, key: str, value: Any) -> None:
        if self.columns.get(key, DataType.ARRAY) == DataType.ARRAY:
            return
        holds_text = self.columns[key] == DataType.VARCHAR
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) != holds_text:
                raise ValueError(f"the column holds {'strings' if holds_text else 'numbers'}, got {one!r}")

    def _is_one_of(self, key: str, field: str, values: list[Any]) -> str:
        is_bool = self.columns.get(key) == DataType.BOOL
        if is_bool or not values:
            found = []
        elif self.lite or len(values) == 1:
            # Lite fails on `in` where a row has a list under the key, and has no `$meta["key"] in`.
            found = [f"{field} == {literal(value)}" for value in values]
        else:
            found = [f"{field} in {literal(values)}"]
        if is_bool or key not in self.columns:
            # A MetadataFilter takes no bool, but 1 == True in Python.
            found += [f"{field} == {_TRUTHS[value]}" for value in values if value in _TRUTHS]
        return joined("or", found) if found else is_in("id", [])

    def _is_empty(self, key: str, field: str) -> str:
        if key not in self.columns:
            return f'(not (exists {field}) or {field} == "")'
        if self.columns[key] != DataType.VARCHAR:
            raise ValueError("a column of this type always has a value")
        return f'{field} == ""'

    def _holds_text(self, field: str, value: Any) -> str:
        wildcard = _WILDCARDS.search(value) if isinstance(value, str) else None
        if wildcard:
            raise ValueError(
                f"{wildcard[0]!r} is a wildcard to Milvus. Write what is before and what is after it as two "
                f"filters, got {value!r}."
            )
        return f"{field} like {quoted(f'%{value}%' if isinstance(value, str) else value)}"

    def _list_holds(self, operator: FilterOperator, key: str, field: str, value: Any) -> str:
        if value == []:
            raise ValueError("the list is empty")
        if self.lite and key not in self.columns:
            if not _IDENTIFIER.fullmatch(key) or key.lower() in _KEYWORDS:
                raise ValueError(
                    "Milvus Lite looks into lists only under keys of letters, digits and underscores. Give "
                    "the key such a name."
                )
            field = key
        kind = "array" if key in self.columns else "json"
        return f"{kind}_contains{_IN_LISTS[operator]}({field}, {literal(value)})"
