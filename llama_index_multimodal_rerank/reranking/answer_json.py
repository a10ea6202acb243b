"""JSON as models write it: cut short, with raw line breaks, single quotes, commas too many, prose around.

A reader for what :mod:`json` refuses. It reads from left to right once, without recursion and without looking
back, so that no text takes more than linear time, and it never raises. Where a text breaks the rules of JSON
it goes on as well as it can, and says so: what follows such a place may be the contents of a string.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_NEXT = re.compile(r"""["'{}\[\]:,]|[^\s"'{}\[\]:,]+""")
_DOUBLE_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)("?)', re.S)
_SINGLE_QUOTED = re.compile(r"'([^'\\]*(?:\\.[^'\\]*)*)('?)", re.S)


class Literal(str):
    """A bare word or number, as written; a ``str`` proper stood in quotes."""

    __slots__ = ()


@dataclass
class Container:
    """An object or array.

    Attributes:
        is_object: whether it is an object.
        members: key and value of each member in order; the keys of an array are ``""``. Values are
            containers, strings and :class:`Literal`.
        sound: whether the text kept to the rules from the beginning up to each member, one entry per member.
        closed: whether its closing bracket was found.
    """

    is_object: bool
    members: list[tuple[str, Any]] = field(default_factory=list)
    sound: list[bool] = field(default_factory=list)
    closed: bool = False


@dataclass(frozen=True, eq=False)
class JsonValue:
    """An outermost object or array of a text.

    Attributes:
        text: what it was read from.
        value: the object or array.
        start: where it begins.
        end: the first character after it.
        sound: whether the text kept to the rules from ``start`` to ``end``, and ended there.
    """

    text: str
    value: Container
    start: int
    end: int
    sound: bool


def json_objects(text: str) -> list[JsonValue]:
    """Read every outermost object of a text."""
    found: list[JsonValue] = []
    start = text.find("{")
    while start >= 0:
        found.append(read_json(text, start))
        start = text.find("{", found[-1].end)
    return found


def read_json(text: str, start: int) -> JsonValue:
    """Read the object or array that begins at ``start``, up to its closing bracket or the end of the text."""
    return _Reader(text, start).read()


class _Reader:
    def __init__(self, text: str, start: int) -> None:
        self.text, self.start = text, start
        self.root = Container(text[start] == "{")
        self.open = [self.root]
        self.open_objects = int(self.root.is_object)
        self.key: str | None = None  # of the innermost object, until its value is there
        self.colon = False
        self.expecting = True  # whether a key or value may stand here
        self.sound = True

    def read(self) -> JsonValue:
        position = self.start + 1
        while self.open and (token := _NEXT.search(self.text, position)) is not None:
            position = token.end()
            mark = token.group()
            if mark == '"' or (mark == "'" and self.expecting):
                position = self._string(token.start(), mark)
            elif mark in "{[":
                self._enter(mark == "{")
            elif mark in "}]":
                self._leave(mark == "}")
            elif mark == ":":
                self._colon()
            elif mark == ",":
                self._comma()
            elif mark == "'":
                self.sound = False
            elif position < len(self.text):  # else it may be what is left of a longer word
                self._value(Literal(mark))
        done = not self.open
        end = position if done else len(self.text)
        return JsonValue(self.text, self.root, self.start, end, sound=self.sound and done)

    def _string(self, start: int, quote: str) -> int:
        pattern = _DOUBLE_QUOTED if quote == '"' else _SINGLE_QUOTED
        match = pattern.match(self.text, start)
        assert match is not None  # noqa: S101 (the quote is there)
        closed = bool(match.group(2))
        self.sound = self.sound and closed
        if closed or self.colon:
            self._value(_unescaped(match.group(1)))
        return match.end()

    def _value(self, value: Any) -> None:
        container = self.open[-1]
        if container.is_object and not self.colon:  # a key, then
            self.sound = self.sound and self.key is None and isinstance(value, str)
            self.key = value if isinstance(value, str) else None
            self.expecting = False
            return
        self.sound = self.sound and self.expecting
        container.members.append((self.key or "", value))
        container.sound.append(self.sound)
        self.key, self.colon, self.expecting = None, False, False

    def _enter(self, is_object: bool) -> None:
        inner = Container(is_object)
        container = self.open[-1]
        if container.is_object and not self.colon:
            self.sound = False
            self.key = ""
        self.colon = True
        self._value(inner)
        self.open.append(inner)
        self.open_objects += is_object
        self.expecting = True

    def _leave(self, is_object: bool) -> None:
        if (self.open_objects if is_object else len(self.open) - self.open_objects) == 0:
            self.sound = False
            return
        self.sound = self.sound and self.key is None
        while True:
            container = self.open.pop()
            self.open_objects -= container.is_object
            if container.is_object == is_object:
                break
            self.sound = False
        container.closed = True
        self.key, self.colon, self.expecting = None, False, False

    def _colon(self) -> None:
        self.sound = self.sound and self.open[-1].is_object and self.key is not None and not self.colon
        self.colon = self.open[-1].is_object and self.key is not None
        self.expecting = True

    def _comma(self) -> None:
        self.sound = self.sound and self.key is None and not self.expecting
        self.key, self.colon, self.expecting = None, False, True


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:  # an escape that JSON does not know
        return re.sub(r"\\(.)", r"\1", text, flags=re.S)
