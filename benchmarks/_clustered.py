"""Random vectors that lie as embeddings do: in groups, and in fewer directions than they have numbers.

An approximate index is of no use for vectors without any structure, and an exact one does not care.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LATENT_DIM = 32
"""Directions in which the vectors differ from each other, but for a little noise."""

ROWS_OF_A_GROUP = 100
"""Rows that share a centre, about: a shop's products of one kind."""

_SPREAD = 0.5  # of a group, where centres are spread by 1 in each direction
_NOISE = 0.05  # in all directions, of the whole length


@dataclass(frozen=True)
class ClusteredVectors:
    """Vectors of length 1, and queries that lie among them without being one of them.

    Attributes:
        vectors: float32, (rows, dim).
        queries: float32, (queries, dim).
    """

    vectors: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]

    @classmethod
    def make(cls, rows: int, queries: int, dim: int, seed: int = 0) -> ClusteredVectors:
        """Draw vectors; the same seed gives the same."""
        rng = np.random.default_rng(seed)
        inner = min(LATENT_DIM, dim)
        centres = rng.standard_normal((max(1, rows // ROWS_OF_A_GROUP), inner), dtype=np.float32)
        directions, _ = np.linalg.qr(rng.standard_normal((dim, inner), dtype=np.float32))
        group = rng.integers(len(centres), size=rows + queries)
        latent = centres[group] + _SPREAD * rng.standard_normal((len(group), inner), dtype=np.float32)
        drawn = latent @ directions.T.astype(np.float32)
        length = np.linalg.norm(drawn, axis=1, keepdims=True)
        drawn += _NOISE * length / np.sqrt(dim) * rng.standard_normal(drawn.shape, dtype=np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return cls(drawn[:rows], drawn[rows:])

    def nearest(self, query: npt.NDArray[np.float32], count: int) -> list[int]:
        """Return the rows with the largest dot products, the best first: all are compared."""
        scores = self.vectors @ query
        best = np.argpartition(-scores, count)[:count]
        return [int(row) for row in best[np.argsort(-scores[best])]]
