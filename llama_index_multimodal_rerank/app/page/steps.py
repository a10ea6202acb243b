"""A search as the page shows it, stage by stage: what was retrieved while the model is still at work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llama_index.core.schema import NodeWithScore

from .cards import CardList, cards_of, render_lists
from .markup import render
from .messages import note
from .thumbnails import data_uri

WAITING = "The model is looking at them …"


@dataclass(frozen=True)
class Screen:
    """What the page shows of a search. All but ``hits`` is HTML.

    Attributes:
        message: a note about the search.
        lists: the lists as retrieved and as reranked.
        said: the model's words, and the seconds of each stage.
        compared: the lists by picture alone, by words alone and by both.
        saw: the sheet and the audit.
        hits: the lists behind the cards, by name: what a click on a card means.
    """

    message: str = ""
    lists: str = ""
    said: str = ""
    compared: str = ""
    saw: str = ""
    hits: Mapping[str, Sequence[NodeWithScore]] = field(default_factory=dict)
