"""Names of collections, databases, partitions and fields, by Milvus' rule.

A Milvus server checks every name it is given. Milvus Lite (3.2.2) joins names into paths: it drops a
collection ``"../../photos"`` by deleting that folder. So each name is checked before Lite gets it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,254}")

NAME_PARAMETERS = frozenset(
    {"alias", "collection_name", "db_name", "field_name", "new_name", "old_name", "partition_name",
     "partition_names", "primary_field_name", "target_db", "vector_field_name"}
)  # fmt: skip
"""Parameters in which methods of a ``MilvusClient`` take names."""

_MAY_BE_EMPTY = frozenset({"db_name", "field_name", "target_db"})
"""Where the empty name says "the default one" or "any"."""


def check_name(value: object, parameter: str) -> None:
    """Refuse what Milvus does not take as a name.

    Args:
        value: the name; None and, for databases, ``""`` stand for the default one.
        parameter: what the caller calls it.

    Raises:
        ValueError: it is not 1 to 255 letters, digits and underscores (``$`` may follow), begun by no digit.
    """
    if value is None or (value == "" and parameter in _MAY_BE_EMPTY):
        return
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            f"{parameter} must be 1 to 255 letters, digits and underscores, and begin with no digit (Milvus' "
            f"rule for names), got {value!r}"
        )


def checks_names(cls: C) -> C:
    """Let all public methods of a client check the names in their arguments, inherited methods, too."""
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_"):
            # An override may hand arguments on as *args; the first definition tells which they are.
            first = next(vars(base)[name] for base in reversed(cls.__mro__) if name in vars(base))
            setattr(cls, name, _checking(method, inspect.signature(first)))
    return cls


def _checking(method: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:  # the method itself says what is wrong
            return method(*args, **kwargs)
        for parameter, value in _names({**given, **kwargs}):
            check_name(value, parameter)
        return method(*args, **kwargs)

    return checked


def _names(arguments: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for parameter, value in arguments.items():
        if parameter == "schema":
            yield from (("field_name", field.name) for field in getattr(value, "fields", ()))
        elif parameter in NAME_PARAMETERS:
            for name in value if isinstance(value, (list, tuple)) else [value]:
                yield parameter, name
