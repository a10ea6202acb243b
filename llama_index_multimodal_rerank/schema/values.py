"""Values that every store can keep: what is converted, and what is refused by name.

A vector store takes the nodes when all of them are embedded, and a single value that it cannot write ends
the run. So values are looked at when a node is made and before the first one is embedded.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePath
from typing import Any

from ..logs import escape_control

_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_MAX_DEPTH = 50


class NodeValueError(ValueError):
    """A value of a node that stores cannot keep, or that cannot be embedded.

    Attributes:
        owner: the node, or the file that it is made of, as people would name it.
        place: where in the node: ``"text"``, ``"id_"``, ``"metadata['price']"``.
        reason: what is wrong with the value, and what to do.
    """

    def __init__(self, owner: str, place: str, reason: str) -> None:
        owner, place, reason = escape_control(owner), escape_control(place), escape_control(reason)
        super().__init__(owner, place, reason)
        self.owner = owner
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.owner}: {self.place} {self.reason}"


def check_text(text: Any, owner: str, place: str) -> None:
    """Check that a text can be written as UTF-8.

    Args:
        text: what is given as one.
        owner: names the node in the error.
        place: names the text in the node.

    Raises:
        NodeValueError: it is no ``str``, or it holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise NodeValueError(owner, place, f"is {_brief(text)}, of type {type(text).__name__}; give a str")
    if not text.isascii() and (position := surrogate_position(text)) is not None:
        shown = _brief(str.__str__(text))
        raise NodeValueError(
            owner,
            place,
            f"is {shown}, which is not valid Unicode: character {position} is one half of "
            "a surrogate pair. Write text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')",
        )


def surrogate_position(text: str) -> int | None:
    """Return where in a text the first half of a surrogate pair is, None if there is none."""
    try:
        str.encode(text, "utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def storable_metadata(metadata: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return metadata as every store keeps it: strings, numbers, True, False, None, lists and dicts of these.

    Numbers and arrays of NumPy and PyTorch become Python's, tuples lists, ``datetime``, ``date``, ``time``,
    ``pandas.Timestamp`` and ``numpy.datetime64`` ISO 8601 texts, ``Path`` and ``UUID`` texts, and members of
    an ``Enum`` their values. Everything else is refused rather than stored as something else.

    Args:
        metadata: of one node.
        owner: names the node in the error.

    Raises:
        NodeValueError: a key is no text; or a value is NaN, infinite, ``NaT``, an integer beyond 64 bits, a
            text with half of a surrogate pair, nested deeper than 50 levels, or of another type (``bytes``,
            ``set``, ``Decimal`` …).
    """
    return _storable_dict(metadata, owner, "metadata", 0)


def storable_part(metadata: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return what of metadata stores can keep, without the keys that :func:`storable_metadata` refuses."""
    kept: dict[str, Any] = {}
    for key, value in metadata.items():
        with suppress(NodeValueError):
            kept.update(storable_metadata({key: value}, owner))
    return kept


def without_arrays(metadata: dict[str, Any], storable: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with what no store can write taken from ``storable``.

    The rest stays, also what LlamaIndex converts itself (dates, tuples …), and with it the hash of its node.
    """
    changed = {key: storable[key] for key, value in metadata.items() if _has_array(value)}
    return {**metadata, **changed} if changed else metadata


def _has_array(value: Any) -> bool:
    if _is_plain(value):
        return False
    if isinstance(value, (list, tuple)):
        return any(map(_has_array, value))
    return any(map(_has_array, value.values())) if isinstance(value, Mapping) else hasattr(value, "dtype")


def _storable_dict(values: Mapping[Any, Any], owner: str, place: str, depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if type(key) is str and key.isascii() and _is_plain(value):  # nearly all, of every node
            kept[key] = value
            continue
        check_text(key, owner, f"{place}: the key")
        kept[str.__str__(key)] = _storable(value, owner, f"{place}[{key!r}]", depth)
    return kept


def _is_plain(value: Any) -> bool:
    """Tell whether a value is one that is kept as it is; False says nothing."""
    kind = type(value)
    return (kind is str and value.isascii()) or (kind is int and _MIN_INT <= value <= _MAX_INT)


def _storable(value: Any, owner: str, place: str, depth: int) -> Any:
    if value is None or type(value) is bool:
        return value
    if depth > _MAX_DEPTH:
        raise NodeValueError(
            owner, place.partition("]")[0] + "]", f"is nested deeper than {_MAX_DEPTH} levels"
        )
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = _from_array(value, owner, place)
        return None if value is None else _storable(value, owner, place, depth)
    if isinstance(value, Enum):
        return _storable(value.value, owner, place, depth)
    if isinstance(value, str):
        check_text(value, owner, place)
        return str.__str__(value)
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            raise NodeValueError(owner, place, f"is {_brief(value)}, beyond 64 bits; write str(...)")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NodeValueError(
                owner, place, f"is {value}, which is no JSON; leave the key out, or write None"
            )
        return float(value)
    if isinstance(value, (datetime, date, time)):
        if value != value:
            raise NodeValueError(owner, place, "is NaT (no time); leave the key out, or write None")
        return value.isoformat()
    if isinstance(value, (PurePath, uuid.UUID)):
        return _storable(str(value), owner, place, depth)
    if isinstance(value, (list, tuple)):
        return [_storable(one, owner, f"{place}[{i}]", depth + 1) for i, one in enumerate(value)]
    if isinstance(value, Mapping):
        return _storable_dict(value, owner, place, depth + 1)
    raise NodeValueError(
        owner,
        place,
        f"is {_brief(value)}, of type {type(value).__name__}, which stores cannot keep; write a text, a "
        "number, True, False, None, or a list or dict of these",
    )


def _from_array(value: Any, owner: str, place: str) -> Any:
    """Return a NumPy scalar, an array, or what behaves like one, as Python's own."""
    kind = getattr(value.dtype, "kind", "")
    if kind == "m":
        raise NodeValueError(owner, place, f"is {_brief(value)}, a span of time; write a number or a text")
    if kind == "M":  # datetime64: beyond microseconds, Python's would be an int
        value = value.astype("datetime64[us]")
        if (value != value).any():
            raise NodeValueError(owner, place, "is NaT (no time); leave the key out, or write None")
    converted = value.tolist()
    if hasattr(converted, "dtype"):  # longdouble has no twin in Python
        converted = float(converted)
    return converted


def _brief(value: Any) -> str:
    try:
        shown = ascii(value)
    except Exception:  # an int of too many digits, a __repr__ of somebody's
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
