"""Queries with what was found, retrieved and reranked, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_index.core.schema import NodeWithScore

from llama_index_multimodal_rerank import ImageTextQuery


@dataclass(frozen=True)
class Hit:
    """A picture of a list.

    Attributes:
        place: its place in the list, from 1.
        name: what it shows, or the name of its file.
        image_path: its file.
        score: of the retriever or the reranker, whichever made the list.
        other_place: its place in the other list; None where it is not in it, or there is none.
        moved: by reranking. None where there is nothing to say about it.
    """

    place: int
    name: str
    image_path: str
    score: float
    other_place: int | None = None
    moved: Literal["up", "down", "same"] | None = None


@dataclass(frozen=True)
class QueryResult:
    """A query with what was retrieved, and the same reranked, if it was."""

    query: ImageTextQuery
    retrieved: list[NodeWithScore]
    reranked: list[NodeWithScore] | None

    def lists(self, described: Mapping[str, str]) -> dict[str, list[Hit]]:
        """Return the lists by their names, "retrieved" and "reranked".

        Args:
            described: what files show, by their names.
        """
        places = {hit.node.node_id: place for place, hit in enumerate(self.retrieved, start=1)}
        new_places = {hit.node.node_id: place for place, hit in enumerate(self.reranked or [], start=1)}
        lists = {"retrieved": _hits(self.retrieved, described, new_places, moves=False)}
        if self.reranked is not None:
            lists["reranked"] = _hits(self.reranked, described, places, moves=True)
        return lists

    def said(self, key: str) -> object:
        """Return what the reranker says in the metadata of the first picture; None where it says nothing."""
        return self.reranked[0].node.metadata.get(key) if self.reranked else None


def _hits(
    found: Sequence[NodeWithScore], described: Mapping[str, str], others: Mapping[str, int], *, moves: bool
) -> list[Hit]:
    hits = []
    for place, hit in enumerate(found, start=1):
        other = others.get(hit.node.node_id)
        moved: Literal["up", "down", "same"] | None = None
        if moves and other is not None:
            moved = "up" if other > place else "down" if other < place else "same"
        name = file_name(hit)
        hits.append(
            Hit(place, described.get(name, name), hit.node.image_path, hit.score or 0.0, other, moved)
        )
    return hits


def file_name(hit: NodeWithScore) -> str:
    """Return the name of the picture's file."""
    return Path(hit.node.image_path).name


def columns(count: int, choices: Sequence[int]) -> int:
    """Return how many columns a grid has: no picture is alone in the last row, which is as full as can be.

    Args:
        count: pictures.
        choices: numbers of columns for which there is room; of equally good ones the first is taken.
    """
    return min(choices, key=lambda each: (count > each and count % each == 1, -count % each))


def print_result(result: QueryResult, described: Mapping[str, str]) -> None:
    """Print what was found; reranked, both lists side by side, and why the first is the first."""
    print(f"\n[{result.query.image_path}] + {result.query.query_str!r}")
    retrieved, reranked = (result.lists(described).get(name) for name in ("retrieved", "reranked"))
    if reranked is None:
        for hit in retrieved or []:
            print(f"  {hit.place}. {_line(hit)}")
        return
    print(f"     {'retrieved':<44}reranked")
    for left, hit in zip(retrieved or [], reranked, strict=True):
        print(f"  {hit.place}. {_line(left):<44}{_line(hit)}  (was {hit.other_place})")
    print(f"  The reranker saw in the query: {result.said('rerank_query_caption')}")
    print(f"  Its reason: {result.said('rerank_reason')}")


def _line(hit: Hit) -> str:
    return f"{hit.score:.3f}  {hit.name}"
