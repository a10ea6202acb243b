"""What a run of ``index_with_ray`` asks of the place that it writes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class EmbeddingFacts:
    """What a store asks of an embedding model, without the model: it is loaded where it is used.

    Attributes:
        dim: length of the vectors.
        fingerprint: what tells them from others.
    """

    dim: int
    fingerprint: dict[str, str]


class OpenTarget(Protocol):
    """A place that is ready; sent to the workers.

    Attributes:
        columns: names of the store's columns, by the arguments of ``MilvusVectorStore``.
        batch_rows: rows that are best written at once.
    """

    columns: Mapping[str, str]
    batch_rows: int

    def stored(self, ids: Sequence[str]) -> dict[str, str]:
        """Return those of the ids that are there, each with the ``content_key`` of its row."""
        ...

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows, with their vectors, in the place of those of the same ids; kept when it returns."""
        ...

    def close(self) -> None:
        """Finish, after the last row was written; in the process of the caller."""
        ...


class Target(Protocol):
    """A place as the user names it."""

    def open(self, embedding: EmbeddingFacts) -> OpenTarget:
        """Make it ready, or raise before work begins; in the process of the caller."""
        ...
