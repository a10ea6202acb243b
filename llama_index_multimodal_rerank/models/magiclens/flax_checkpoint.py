"""A parameter tree as flax writes it: which arrays a file holds, and reading one of them at a time.

The format is that of ``flax.serialization.to_bytes``: nested maps whose leaves are msgpack ext values, an
array of more than 2^30 bytes cut into chunks. Element types are little-endian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CheckpointError
from .msgpack import MsgpackReader, Raw, Value, describe
from .pickled_bytes import find_pickled_bytes

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
}
ARRAY, SCALAR = 1, 3
"""Types of ext values: an array, and a numpy scalar."""

MAX_DIMENSIONS = 8
_CHUNKED = "__msgpack_chunked_array__"
_LARGEST = 2**48


@dataclass(frozen=True)
class ArrayEntry:
    """Where an array lies in a file.

    Attributes:
        shape: its shape.
        dtype: its element type.
        pieces: offset and length of its bytes, in C order; several for an array in chunks.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return sum(length for _, length in self.pieces)


class FlaxCheckpoint:
    """The arrays of a released ``.pkl`` file, by key: ``"params/clip/logit_scale"``.

    The whole structure is checked when it is opened: every length, shape and element type. Nothing is
    unpickled.

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is no pickle of bytes, is damaged, or holds anything but number arrays.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path} is not a file.")
        try:
            with path.open("rb") as file:
                offset, length = find_pickled_bytes(file)
                tree = MsgpackReader(file, offset, length).read()
                self.arrays = dict(_arrays(file, tree, ()))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def read(self, key: str, scratch: torch.Tensor | None = None) -> torch.Tensor:
        """Read one array.

        Args:
            key: one of :attr:`arrays`.
            scratch: bytes to read into, uint8, at least :attr:`ArrayEntry.nbytes` of the array; the result
                is then a view of them. None takes new memory.

        Raises:
            KeyError: there is no such array.
            CheckpointError: the file has become shorter since it was opened.
        """
        entry = self.arrays[key]
        data = torch.empty(entry.nbytes, dtype=torch.uint8) if scratch is None else scratch[: entry.nbytes]
        target = memoryview(data.numpy().data)
        filled = 0
        with self.path.open("rb", buffering=0) as file:
            for offset, length in entry.pieces:
                file.seek(offset)
                end = filled + length
                while filled < end:
                    count = file.readinto(target[filled:end])
                    if not count:
                        raise CheckpointError(f"{self.path} has become shorter while it was read.")
                    filled += count
        return data.view(entry.dtype).view(entry.shape)


def _arrays(file: BinaryIO, value: Value, path: tuple[str, ...]) -> Iterator[tuple[str, ArrayEntry]]:
    where = "/".join(path) or "the top"
    if isinstance(value, dict) and _CHUNKED in value:
        yield where, _chunked(file, value, where)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not key or "/" in key or not key.isprintable():
                raise CheckpointError(
                    f"{key!r} in {where} is no name of an array: it is empty, or has a slash or what does "
                    f"not print."
                )
            yield from _arrays(file, inner, (*path, key))
    elif isinstance(value, Raw) and value.ext_type is not None and path:
        yield where, _array(file, value, where)
    else:
        expected = "a map or an array" if path else "a map"
        raise CheckpointError(f"At {where} stands {describe(value)}; expected {expected}.")


def _array(file: BinaryIO, value: Value, where: str) -> ArrayEntry:
    if not isinstance(value, Raw) or value.ext_type not in (ARRAY, SCALAR):
        raise CheckpointError(
            f"{where} is {describe(value)}; expected an array, an ext value of type {ARRAY} or {SCALAR}."
        )
    content = MsgpackReader(file, value.offset, value.length).read()
    if not isinstance(content, list) or len(content) != 3:
        raise CheckpointError(f"{where} is an array made of {describe(content)}; expected a list of three.")
    shape, dtype, data = content
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{where} has the element type {describe(dtype)}; allowed are {', '.join(DTYPES)}."
        )
    if not isinstance(data, Raw) or data.ext_type is not None:
        raise CheckpointError(f"{where} has {describe(data)} where its bytes are expected.")
    if not isinstance(shape, list):
        raise CheckpointError(f"{where} has {describe(shape)} for its shape; expected a list of lengths.")
    entry = ArrayEntry(_shape(shape, where), DTYPES[dtype], ((data.offset, data.length),))
    wanted = math.prod(entry.shape) * entry.dtype.itemsize
    if data.length != wanted:
        raise CheckpointError(
            f"{where} has {data.length} bytes; its shape {entry.shape} of {dtype} needs {wanted}."
        )
    return entry


def _shape(lengths: list[Value], where: str) -> tuple[int, ...]:
    shape = []
    for length in lengths:
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= _LARGEST:
            raise CheckpointError(
                f"{where} has {describe(length)} in its shape; lengths are whole numbers from 0."
            )
        shape.append(length)
    # of an empty array, too: the other lengths count in its strides
    if len(shape) > MAX_DIMENSIONS or math.prod(length or 1 for length in shape) > _LARGEST:
        raise CheckpointError(
            f"{where} has the shape {tuple(shape)[:16]}; allowed are {MAX_DIMENSIONS} dimensions and 2^48 "
            f"elements."
        )
    return tuple(shape)


def _chunked(file: BinaryIO, value: dict[str, Value], where: str) -> ArrayEntry:
    if value.keys() != {_CHUNKED, "shape", "chunks"} or value[_CHUNKED] is not True:
        raise CheckpointError(f"{where} is a damaged array in chunks: it has {sorted(value)[:8]}.")
    shape = _shape(_numbered(value["shape"], f"the shape of {where}"), where)
    chunks = [
        _array(file, chunk, f"chunk {number} of {where}")
        for number, chunk in enumerate(_numbered(value["chunks"], f"the chunks of {where}"))
    ]
    dtypes = {chunk.dtype for chunk in chunks}
    if len(dtypes) != 1:
        raise CheckpointError(f"{where} is in {len(chunks)} chunks of {len(dtypes)} element types.")
    elements = sum(math.prod(chunk.shape) for chunk in chunks)
    if elements != math.prod(shape):
        raise CheckpointError(
            f"The chunks of {where} hold {elements} elements; its shape {shape} needs {math.prod(shape)}."
        )
    return ArrayEntry(shape, dtypes.pop(), tuple(piece for chunk in chunks for piece in chunk.pieces))


def _numbered(value: Value, where: str) -> list[Value]:
    """Return the values of a map whose keys are "0", "1", "2" and so on, in the order of the numbers."""
    if not isinstance(value, dict):
        raise CheckpointError(f"In {where} stands {describe(value)}; expected a map of numbered entries.")
    wanted = [str(number) for number in range(len(value))]
    if missing := sorted(set(wanted) - value.keys()):
        raise CheckpointError(
            f"In {where} entry {missing[0]!r} of {len(wanted)} is missing; there are "
            f"{', '.join(map(repr, list(value)[:8]))}."
        )
    return [value[key] for key in wanted]
