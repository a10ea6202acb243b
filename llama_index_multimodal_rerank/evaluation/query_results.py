"""What was found for one query: its lists, with their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .benchmark import Sides

RETRIEVED = "retrieved"
"""Name of the list before any reranking."""


@dataclass(frozen=True)
class RankedList:
    """One list for one query.

    Attributes:
        ids: the pictures, the best first; excluded ones are not among them.
        subset_ids: the query's subset in its order; empty without one.
        scores: by metric; empty if the right answers are not known.
        seconds: how long it took, without the subset.
    """

    ids: tuple[str, ...]
    subset_ids: tuple[str, ...]
    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class QueryResult:
    """All lists for one query.

    Attributes:
        id_: of the query.
        groups: of the query.
        asked: what the query has: picture and text, or one of them.
        lists: by what was asked with, and by the list's name (``"retrieved"``, ``"reranked"``).
    """

    id_: str
    groups: tuple[str, ...]
    asked: Sides
    lists: Mapping[tuple[Sides, str], RankedList] = field(repr=False)
