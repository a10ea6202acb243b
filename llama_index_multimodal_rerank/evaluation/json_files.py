"""Reading the files of benchmarks: every value is checked; errors name file, entry, fault and way out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..logs import one_line


class BenchmarkFileError(ValueError):
    """A file of a benchmark, or of labelled queries, that is not of its format."""


@dataclass(frozen=True)
class Entry:
    """One entry of a file, with checked access to its values.

    Attributes:
        path: the file.
        place: names the entry, for people: ``"entry 3"`` (from 1), ``"line 7"``.
        values: the JSON object.
        way_out: what to do if a value is wrong.
    """

    path: Path
    place: str
    values: Mapping[str, Any]
    way_out: str

    def error(self, fault: str) -> BenchmarkFileError:
        """Return the error that names this entry and what is wrong with it."""
        return BenchmarkFileError(f"{self.path}, {self.place}: {fault}. {self.way_out}")

    def text(self, key: str) -> str:
        """Return a text that is not blank."""
        return self._checked_text(f"{key!r}", self._value(key))

    def integer(self, key: str) -> int:
        """Return an integer, at least 0."""
        return self._checked_integer(f"{key!r}", self._value(key))

    def texts(self, key: str, *, count: int | None = None) -> tuple[str, ...]:
        """Return a list of texts that are not blank, ``count`` of them if that is given."""
        found = self._list(key, count)
        return tuple(self._checked_text(f"{key!r}[{place}]", each) for place, each in enumerate(found))

    def integers(self, key: str) -> tuple[int, ...]:
        """Return a list of integers, each at least 0."""
        found = self._list(key, None)
        return tuple(self._checked_integer(f"{key!r}[{place}]", each) for place, each in enumerate(found))

    def object(self, key: str) -> Entry:
        """Return the JSON object under a key."""
        value = self._value(key)
        if not isinstance(value, dict):
            raise self.error(f"{key!r} must be a JSON object, got {shown(value)}")
        return Entry(self.path, f"{self.place}, {key!r}", value, self.way_out)

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(
                f"{key!r} is missing; there are {', '.join(map(repr, self.values)) or 'no keys'}"
            )
        return self.values[key]

    def _list(self, key: str, count: int | None) -> list[Any]:
        value = self._value(key)
        if not isinstance(value, list) or not value or count not in (None, len(value)):
            wanted = "one or more" if count is None else count
            raise self.error(f"{key!r} must be a list of {wanted} values, got {shown(value)}")
        return value

    def _checked_text(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{name} must be a text that is not blank, got {shown(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error(f"{name} holds half of a surrogate pair: {value!a}") from None
        return value

    def _checked_integer(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"{name} must be an integer from 0 on, got {shown(value)}")
        return value


def read_json(path: Path, way_out: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: a file in UTF-8.
        way_out: what to do if it is missing or broken.

    Raises:
        FileNotFoundError: there is no such file.
        BenchmarkFileError: it is no JSON, or an object in it has the same key twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {str(path)!r}. {way_out}")
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BenchmarkFileError(
            f"{path} is no JSON in UTF-8: {one_line(str(error), 200)}. {way_out}"
        ) from error


def parse_json(text: str) -> Any:
    """Return what a text in JSON says; a key that stands twice in one object is a ValueError."""
    return json.loads(text, object_pairs_hook=_without_doubles)


def entries(path: Path, data: Any, way_out: str) -> list[Entry]:
    """Return the entries of a file that must be a list of JSON objects, at least one.

    Raises:
        BenchmarkFileError: it is something else.
    """
    if not isinstance(data, list) or not data:
        raise BenchmarkFileError(
            f"{path}: a list of JSON objects is expected, at least one, got {shown(data)}. {way_out}"
        )
    for number, values in enumerate(data, start=1):
        if not isinstance(values, dict):
            raise BenchmarkFileError(
                f"{path}, entry {number}: a JSON object is expected, got {shown(values)}. {way_out}"
            )
    return [Entry(path, f"entry {number}", values, way_out) for number, values in enumerate(data, start=1)]


def check_different(entry: Entry, key: str, values: Sequence[object]) -> None:
    """Check that a list has no value twice.

    Raises:
        BenchmarkFileError: it has.
    """
    if (double := first_double(values)) is not None:
        raise entry.error(f"{key!r} has {double!r} twice")


def first_double(values: Sequence[object]) -> object | None:
    """Return the first value that stands in a list for the second time, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def shown(value: object) -> str:
    """Return a short form of a value, for an error."""
    return f"{type(value).__name__} {one_line(repr(value), 80)}"


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"the key {first_double([key for key, _ in pairs])!r} stands twice in one object")
    return values
