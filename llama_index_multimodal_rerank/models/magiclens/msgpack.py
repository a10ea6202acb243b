"""The part of msgpack that flax writes arrays in, read in place: where the data are, not the data.

Made here because msgpack's own reader copies every array, and the released files are mostly arrays: this way
a file is checked from end to end before a number of it is read, and loading takes the memory of the model
alone. Specification: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from ..errors import CheckpointError

MAX_DEPTH = 32
"""How deep values may be nested; the released ones are 8 deep."""

MAX_VALUES = 100_000
"""How many keys and values a tree may have; the released ones have about 2,000."""

MAX_TEXT = 1024
"""How long a text may be, in bytes."""


@dataclass(frozen=True)
class Raw:
    """Bytes that were not read.

    Attributes:
        offset: where in the file they begin.
        length: how many there are.
        ext_type: type of an ext value, None for plain bytes.
    """

    offset: int
    length: int
    ext_type: int | None = None


Value: TypeAlias = "bool | int | str | Raw | list[Value] | dict[str, Value] | None"

# First byte: kind, and the width of its length or value in bytes.
_SIZED = {
    0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4),
    0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
    0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4),
    0xDC: ("array", 2), 0xDD: ("array", 4),
    0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_NUMBERS = {
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_FLOATS = {0xCA: "float32", 0xCB: "float64"}


class MsgpackReader:
    """Reads one value from a part of a file.

    Args:
        file: an open binary file that can seek.
        offset: where the part begins.
        length: how long it is.
    """

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file = file
        self._start = offset
        self._end = offset + length
        self._values = 0

    def read(self) -> Value:
        """Return the value that fills the part.

        Raises:
            CheckpointError: it is cut off, followed by other bytes, nested too deeply, or holds what is not
                expected in a checkpoint: a number with a fraction, a map whose keys are no texts.
        """
        self._file.seek(self._start)
        value = self._value(0)
        rest = self._end - self._file.tell()
        if rest:
            raise CheckpointError(
                f"{rest} bytes follow behind the msgpack data, at byte {self._file.tell()}."
            )
        return value

    def _value(self, depth: int) -> Value:
        place = self._file.tell()
        self._values += 1
        if self._values > MAX_VALUES:
            raise CheckpointError(f"The msgpack data hold more than {MAX_VALUES} values.")
        if depth > MAX_DEPTH:
            raise CheckpointError(f"At byte {place} maps or lists are nested more than {MAX_DEPTH} deep.")
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self._map(first & 0x0F, depth)
        if first < 0xA0:
            return self._list(first & 0x0F, depth)
        if first < 0xC0:
            return self._text(first & 0x1F)
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return int(struct.unpack(_NUMBERS[first], self._take(struct.calcsize(_NUMBERS[first])))[0])
        if first in _FIXED_EXT:
            return self._ext(_FIXED_EXT[first])
        if first not in _SIZED:
            found = _FLOATS.get(first, f"the byte 0x{first:02x}")
            raise CheckpointError(f"At byte {place} stands {found}, which is no part of a checkpoint.")
        kind, width = _SIZED[first]
        size = int.from_bytes(self._take(width), "big")
        if kind == "map":
            return self._map(size, depth)
        if kind == "array":
            return self._list(size, depth)
        if kind == "str":
            return self._text(size)
        return self._ext(size) if kind == "ext" else self._skip(size, None)

    def _map(self, size: int, depth: int) -> dict[str, Value]:
        entries: dict[str, Value] = {}
        for _ in range(size):
            place = self._file.tell()
            key = self._value(depth + 1)
            if not isinstance(key, str):
                raise CheckpointError(f"At byte {place} a map's key is {describe(key)}; expected a text.")
            if key in entries:
                raise CheckpointError(f"At byte {place} a map has the key {key!r} for the second time.")
            entries[key] = self._value(depth + 1)
        return entries

    def _list(self, size: int, depth: int) -> list[Value]:
        return [self._value(depth + 1) for _ in range(size)]

    def _text(self, size: int) -> str:
        place = self._file.tell()
        if size > MAX_TEXT:
            raise CheckpointError(f"The text at byte {place} has {size} bytes; at most {MAX_TEXT} are read.")
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"The text at byte {place} is not UTF-8: {error}.") from error

    def _ext(self, size: int) -> Raw:
        (ext_type,) = struct.unpack(">b", self._take(1))
        return self._skip(size, ext_type)

    def _skip(self, size: int, ext_type: int | None) -> Raw:
        place = self._file.tell()
        self._check(place, size)
        self._file.seek(place + size)
        return Raw(place, size, ext_type)

    def _take(self, size: int) -> bytes:
        self._check(self._file.tell(), size)
        return self._file.read(size)

    def _check(self, place: int, size: int) -> None:
        if size > self._end - place:
            raise CheckpointError(
                f"The msgpack data are cut off: {size} bytes are announced at byte {place}, "
                f"{self._end - place} follow."
            )


def describe(value: Value) -> str:
    """Say what a value is, in a few words."""
    if isinstance(value, Raw):
        return f"{value.length} bytes" if value.ext_type is None else f"an ext value of type {value.ext_type}"
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
