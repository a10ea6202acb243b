"""What a list of results shows: a card for each picture, with its place and how far it moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import BaseNode, NodeWithScore

from ...images.access import ImageAccess
from ...logs import one_line
from ...schema.nodes import node_image
from .markup import render
from .thumbnails import thumbnail

TITLE_KEYS = ("title", "name", "description", "caption")
"""Metadata that may hold a title; the first that is there is shown."""

_TITLE_CHARS = 120


@dataclass(frozen=True)
class Card:
    """One picture in a list.

    Attributes:
        place: in this list, from 1.
        key: the same for the same picture in the lists beside it.
        file: name of its file, or ``""``.
        title: what it is called.
        score: similarity or the reranker's score; None if there is none.
        picture: ``data:`` URI, or ``""``.
        problem: why there is no picture.
        movement: places up (negative: down) against the list before; None in lists that came first.
    """

    place: int
    key: str
    file: str
    title: str
    score: float | None
    picture: str
    problem: str
    movement: int | None = None

    @property
    def mark(self) -> str:
        """Movement as a mark, such as ``▲ 3``."""
        if not self.movement:
            return "="
        return f"{'▲' if self.movement > 0 else '▼'} {abs(self.movement)}"

    @property
    def movement_in_words(self) -> str:
        """Movement for those who do not see the mark."""
        if not self.movement:
            return "same place as retrieved"
        return f"{'up' if self.movement > 0 else 'down'} by {abs(self.movement)}"


@dataclass(frozen=True)
class CardList:
    """A titled list of cards.

    Attributes:
        name: what the browser sends with a click.
        title: its heading.
        note: beside the heading.
        cards: the cards, best first.
        empty: shown instead of cards if there are none.
    """

    name: str
    title: str
    note: str = ""
    cards: Sequence[Card] = ()
    empty: str = "Nothing was found."


def cards_of(
    hits: Sequence[NodeWithScore], access: ImageAccess, *, before: Sequence[NodeWithScore] | None = None
) -> list[Card]:
    """Make the cards of a list.

    Args:
        hits: the list, best first.
        access: what may be read to show it.
        before: the list that it was made of by reranking; cards are then marked with their movement.
    """
    was = {hit.node.node_id: place for place, hit in enumerate(before or (), start=1)}
    cards = []
    for place, hit in enumerate(hits, start=1):
        image = node_image(hit.node)
        picture, problem = ("", "no picture") if image is None else thumbnail(image, access)
        cards.append(
            Card(
                place=place,
                key=hit.node.node_id,
                file=file_name(hit.node),
                title=title_of(hit.node),
                score=hit.score,
                picture=picture,
                problem=problem,
                movement=was[hit.node.node_id] - place if before is not None else None,
            )
        )
    return cards


def file_name(node: BaseNode) -> str:
    """Return the name of a node's file, without its folder; ``""`` if it has none."""
    path = node.metadata.get("file_path") or getattr(node, "image_path", None) or ""
    return one_line(Path(str(path)).name)


def title_of(node: BaseNode) -> str:
    """Return a title: of the metadata, else the node's text, else the file's name, else the id."""
    words = next((node.metadata[key] for key in TITLE_KEYS if node.metadata.get(key)), None)
    text = words or getattr(node, "text", "") or file_name(node) or node.node_id
    return one_line(str(text))[:_TITLE_CHARS]


def render_lists(*lists: CardList) -> str:
    """Return lists side by side as HTML."""
    return render("lists", lists=lists)
