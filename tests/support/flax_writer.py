"""Writes checkpoints as flax does: msgpack of nested maps of arrays, in a pickle of bytes.

Only for tests: array by array, so that a full-size file needs little memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

MakeArray = Callable[[str, tuple[int, ...]], np.ndarray]


def pickled_tree(
    shapes: Mapping[str, tuple[int, ...]], make: MakeArray, *, dtype: str = "float32"
) -> Iterator[bytes]:
    """Yield the pieces of a released file.

    Args:
        shapes: of every array, by key, names joined with ``/``.
        make: makes an array.
        dtype: the element type that the file names, of four bytes; the numbers are written as float32.
    """
    tree: dict[str, Any] = {}
    for key, shape in shapes.items():
        *parents, leaf = key.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = (key, shape)
    length = sum(_sizes(tree, dtype))
    yield b"\x80\x04B" + struct.pack("<I", length)  # PROTO 4, BINBYTES
    yield from _pieces(tree, make, dtype)
    yield b"\x94."  # MEMOIZE, STOP


def pickled_bytes(payload: bytes) -> bytes:
    """Return a pickle of bytes, protocol 4."""
    return b"\x80\x04B" + struct.pack("<I", len(payload)) + payload + b"\x94."


def _sizes(node: Any, dtype: str) -> Iterator[int]:
    """Lengths of what :func:`_pieces` yields, without making any array."""
    if isinstance(node, dict):
        yield len(_map_head(len(node)))
        for name, value in node.items():
            yield len(_text(name))
            yield from _sizes(value, dtype)
    else:
        _, shape = node
        yield len(_array_head(shape, dtype)) + 4 * math.prod(shape)


def _pieces(node: Any, make: MakeArray, dtype: str) -> Iterator[bytes]:
    if isinstance(node, dict):
        yield _map_head(len(node))
        for name, value in node.items():
            yield _text(name)
            yield from _pieces(value, make, dtype)
    else:
        key, shape = node
        yield _array_head(shape, dtype)
        yield np.ascontiguousarray(make(key, shape), dtype="<f4").tobytes()


def _map_head(size: int) -> bytes:
    return bytes([0x80 | size]) if size < 16 else b"\xde" + struct.pack(">H", size)


def _text(text: str) -> bytes:
    data = text.encode()
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])) + data


def _array_head(shape: tuple[int, ...], dtype: str) -> bytes:
    """Ext value of type 1, up to the array's own bytes."""
    lengths = b"".join(b"\xce" + struct.pack(">I", length) for length in shape)
    inner = b"\x93" + bytes([0x90 | len(shape)]) + lengths + _text(dtype)
    inner += b"\xc6" + struct.pack(">I", 4 * math.prod(shape))
    return b"\xc9" + struct.pack(">I", len(inner) + 4 * math.prod(shape)) + b"\x01" + inner
