"""How much memory and disk a collection takes, by arithmetic: docs/milvus_at_size.md has the table.

    python -m benchmarks.milvus_sizes

Nothing is measured. The formulae are those of the index types' structures, with the parameters below; what a
server takes beside them (caches, growing segments, the process itself) is not in them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

GIB = 2**30

ROWS = (10**6, 10**7, 10**8)
DIMS = (768, 1024)

FLOAT = 4
"""Bytes of a number of a vector."""

M = 16
"""HNSW: links of a row in each layer; the lowest has twice as many."""

MAX_DEGREE = 56
"""DISKANN: links of a row."""

PQ_RATIO = 0.125
"""DISKANN: memory for compressed vectors, as a share of the raw ones."""

CACHE_RATIO = 0.10
"""DISKANN: memory for the rows that searches begin with, as a share of the raw vectors."""

SECTOR = 4096
"""DISKANN: bytes that are read from the disk at once; no row is spread over more than it needs."""

PAYLOAD = 1700
"""Bytes of a row beside its vector: LlamaIndex' JSON of the node, text, ids."""


def raw(rows: int, dim: int) -> float:
    """Return the bytes of the vectors themselves; FLAT and IVF_FLAT search in them."""
    return FLOAT * rows * dim


def payload(rows: int, dim: int) -> float:
    """Return the bytes of all else in the rows."""
    return PAYLOAD * rows


def hnsw(rows: int, dim: int) -> float:
    """Return the bytes of vectors and links: 2 M in the lowest layer, M in about 1 / (M - 1) above it.

    A link is 4 bytes, as are the number of links in a layer; a row's own number is 8.
    """
    lowest = FLOAT * dim + 4 * (2 * M + 1) + 8
    upper = 4 * (M + 1) / (M - 1)
    return rows * (lowest + upper)


def ivf_sq8(rows: int, dim: int) -> float:
    """Return the bytes of one byte for each number, a row's own number (8), and 4 sqrt(rows) centres."""
    centres = 4 * math.isqrt(rows)
    return rows * (dim + 8) + FLOAT * dim * centres


def diskann_memory(rows: int, dim: int) -> float:
    """Return the bytes of compressed vectors and of cached rows."""
    return (PQ_RATIO + CACHE_RATIO) * raw(rows, dim)


def diskann_disk(rows: int, dim: int) -> float:
    """Return the bytes of sectors that hold vectors and links; the raw vectors are stored beside them."""
    row = FLOAT * dim + 4 * (MAX_DEGREE + 1)
    if row <= SECTOR:
        return SECTOR * math.ceil(rows / (SECTOR // row))
    return SECTOR * math.ceil(row / SECTOR) * rows


COLUMNS: dict[str, Callable[[int, int], float]] = {
    "vectors": raw,
    "other fields": payload,
    "HNSW": hnsw,
    "IVF_SQ8": ivf_sq8,
    "DISKANN, memory": diskann_memory,
    "DISKANN, disk": diskann_disk,
}


def table() -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield f"| pictures | numbers | {' | '.join(COLUMNS)} |"
    yield f"| ---: | ---: |{' ---: |' * len(COLUMNS)}"
    for rows in ROWS:
        for dim in DIMS:
            sizes = " | ".join(_gib(column(rows, dim)) for column in COLUMNS.values())
            yield f"| {rows:,} | {dim} | {sizes} |"


def _gib(size: float) -> str:
    in_gib = size / GIB
    return f"{in_gib:,.1f}" if in_gib < 100 else f"{in_gib:,.0f}"


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for line in table():
        print(line)


if __name__ == "__main__":
    main()
