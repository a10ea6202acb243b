"""Find the one bytes object that a pickle holds, without unpickling: nothing in the file is ever run.

The released MagicLens files are pickles of a single bytes object. Such a pickle consists of a handful of
opcodes; a file with any other opcode is refused. Source of the opcodes: Python's ``pickletools``.
"""

from __future__ import annotations

import io
import os
import pickletools
import struct
from typing import BinaryIO

from ..errors import CheckpointError

# Opcodes with a bytes object behind them, each with the width of its length in bytes.
_BYTES = {b"C": 1, b"B": 4, b"\x8e": 8}  # SHORT_BINBYTES, BINBYTES, BINBYTES8
# Opcodes that hold no value, each with the width of its argument in bytes.
_OTHERS = {b"\x80": 1, b"\x95": 8, b"\x94": 0, b"q": 1, b"r": 4}  # PROTO, FRAME, MEMOIZE, BINPUT, LONG_BINPUT
_STOP = b"."
_NAMES = {each.code.encode("latin-1"): each.name for each in pickletools.opcodes}
_ALLOWED = "PROTO, FRAME, one of SHORT_BINBYTES, BINBYTES and BINBYTES8, MEMOIZE, BINPUT, LONG_BINPUT, STOP"
_MOST_OPCODES = 16
_LOOK_AT = 4096  # bytes of a refused file that its error is written from


def find_pickled_bytes(file: BinaryIO) -> tuple[int, int]:
    """Return where in a file the bytes are that it is a pickle of.

    Args:
        file: an open binary file that can seek.

    Returns:
        Offset and length of the bytes.

    Raises:
        CheckpointError: the file is a pickle of anything else, or cut off, or no pickle.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    found: tuple[int, int] | None = None
    for _ in range(_MOST_OPCODES):
        place = file.tell()
        opcode = file.read(1)
        if opcode == _STOP:
            if found is None:
                raise _refusal(file, f"it ends at byte {place} without any bytes object")
            if place + 1 != end:
                raise _refusal(file, f"{end - place - 1} bytes follow behind its end at byte {place}")
            return found
        if opcode in _BYTES:
            if found is not None:
                raise _refusal(file, f"a second bytes object begins at byte {place}")
            length = _read_length(file, _BYTES[opcode])
            start = file.tell()
            if length > end - start:
                raise _refusal(
                    file, f"it is cut off: {length} bytes are announced at byte {place}, {end - start} follow"
                )
            found = start, length
            file.seek(start + length)
        elif opcode in _OTHERS:
            argument = file.read(_OTHERS[opcode])
            if len(argument) < _OTHERS[opcode]:
                raise _refusal(file, f"it is cut off at byte {end}")
        elif not opcode:
            raise _refusal(file, f"it is cut off at byte {end}")
        else:
            name = _NAMES.get(opcode, f"the unknown opcode {opcode!r}")
            raise _refusal(file, f"{name} stands at byte {place}")
    raise _refusal(file, f"it has more than {_MOST_OPCODES} opcodes")


def _read_length(file: BinaryIO, width: int) -> int:
    data = file.read(width)
    if len(data) < width:
        raise _refusal(file, "it is cut off in a length")
    return int(struct.unpack({1: "<B", 4: "<I", 8: "<Q"}[width], data)[0])


def _refusal(file: BinaryIO, found: str) -> CheckpointError:
    return CheckpointError(
        f"This is no pickle of one bytes object: {found}. It begins with {_opcodes(file)}. Nothing of it was "
        f"unpickled, because that can run any code; a pickle is read only if it consists of {_ALLOWED}."
    )


def _opcodes(file: BinaryIO) -> str:
    """Name the first opcodes with their arguments; pickletools reads them and runs none."""
    file.seek(0)
    head = file.read(_LOOK_AT)
    names = []
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(head)):
            shown = "" if argument is None else f" {_shortened(argument)}"
            names.append(opcode.name + shown)
            if len(names) == _MOST_OPCODES:
                break
    except Exception as error:  # pickletools raises what its readers meet: ValueError, UnicodeError, ...
        if not names:
            return f"{head[:16]!r}, no opcode ({error})" if head else "nothing, it is empty"
        names.append("...")
    return ", ".join(names)


def _shortened(argument: object) -> str:
    if isinstance(argument, bytes | bytearray):
        return f"({len(argument)} bytes)"
    text = repr(argument)
    return text if len(text) <= 60 else f"{text[:57]}..."
