"""What a list of results shows: a card for each picture, with its place and how far it moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...images.access import ImageAccess
from ...schema.nodes import node_image
from ..search import Hit
from .markup import render
from .thumbnails import thumbnail


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
    empty: str = "Nothing was found. Are the filters too narrow?"


def cards_of(hits: Sequence[Hit], access: ImageAccess, *, moved: bool = False) -> list[Card]:
    """Make the cards of a list.

    Args:
        hits: the list, best first.
        access: what may be read to show it.
        moved: mark how far each moved against the list as retrieved.
    """
    cards = []
    for hit in hits:
        image = node_image(hit.node)
        picture, problem = ("", "no picture") if image is None else thumbnail(image, access)
        title = hit.title or hit.file or hit.id
        moved_by = hit.moved if moved else None
        cards.append(Card(hit.rank, hit.id, hit.file or "", title, hit.score, picture, problem, moved_by))
    return cards


def render_lists(*lists: CardList) -> str:
    """Return lists side by side as HTML."""
    return render("lists", lists=lists)
