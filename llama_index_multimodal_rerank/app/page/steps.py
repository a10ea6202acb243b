"""A search as the page shows it, stage by stage: what was retrieved while the model is still at work."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...images.access import DEFAULT_ACCESS
from ..collections import Collection
from ..search import Hit, SearchRequest, SearchResult, rerank, retrieve, search_sides
from .cards import CardList, cards_of, render_lists
from .markup import render

_STAGES = {
    "embedding": "reading and embedding the query",
    "search": "search",
    "loading": "loading the reranker",
    "reranking": "reranking",
}
_UNSEEN_SECONDS = 0.0005


@dataclass(frozen=True)
class Screen:
    """What the page shows of a search. All but ``hits`` is HTML.

    Attributes:
        lists: the lists as retrieved and as reranked.
        said: the model's words, and the seconds of each stage.
        compared: the lists by picture alone, by words alone and by both.
        saw: the sheet and the audit.
        hits: the lists behind the cards, by name: what a click on a card means.
    """

    lists: str
    said: str = ""
    compared: str = ""
    saw: str = ""
    hits: Mapping[str, Sequence[Hit]] = field(default_factory=dict)


def search_in_steps(collection: Collection, request: SearchRequest) -> Iterator[Screen]:
    """Search, and yield what is known after the retrieval, after the reranking, and after the comparison.

    Args:
        collection: what is searched.
        request: what is asked.

    Raises:
        Exception: as :func:`..search.search`.
    """
    first = retrieve(collection, replace(request, keep_sheets=True))
    waiting = request.strategy != "none" and bool(first.retrieved)
    screen = _screen(first, waiting=waiting)
    yield screen
    if waiting:
        screen = _screen(rerank(collection, first))
        yield screen
    yield _with_comparison(screen, collection, request, first)


def _screen(result: SearchResult, *, waiting: bool = False) -> Screen:
    retrieved = CardList(
        "retrieved", "As retrieved", "by similarity", cards_of(result.retrieved, DEFAULT_ACCESS)
    )
    lists, hits = [retrieved], {"retrieved": result.retrieved}
    if result.reranked is not None:
        cards = cards_of(result.reranked, DEFAULT_ACCESS, moved=True)
        lists.append(CardList("reranked", "Reranked", "by the model", cards))
        hits["reranked"] = result.reranked
    elif waiting:
        lists.append(CardList("reranked", "Reranked", empty="The model is looking at them …"))
    return Screen(render_lists(*lists), _said(result), saw=_saw(result, waiting=waiting), hits=hits)


def _said(result: SearchResult) -> str:
    times = [
        (_STAGES[stage], f"{took:.2f} s") for stage, took in result.seconds.items() if took >= _UNSEEN_SECONDS
    ]
    return render("said", reason=result.reason, caption=result.caption, times=times)


def _saw(result: SearchResult, *, waiting: bool) -> str:
    if result.reranked is None:
        return render("no_model", waiting=waiting)
    return render(
        "saw",
        sheets=[
            f"data:image/png;base64,{base64.b64encode(sheet).decode('ascii')}" for sheet in result.sheets
        ],
        audit=result.audit,
        labels=[hit.node.metadata.get("rerank_label") for hit in result.reranked],
        caption=result.caption,
        reason=result.reason,
    )


def _with_comparison(
    screen: Screen, collection: Collection, request: SearchRequest, composed: SearchResult
) -> Screen:
    """Add what the picture alone and the words alone find, without reranking."""
    if request.sides != "composed":
        return replace(screen, compared=render("one_side", sides=request.sides))
    try:
        results = search_sides(collection, replace(request, strategy="none"), ("image", "text"))
    except ValueError as error:  # a model that embeds no words alone
        return replace(screen, compared=render("one_side", sides="", error=str(error)))
    found = {"image": results["image"], "text": results["text"], "both": composed}
    titles = {"image": "Picture alone", "text": "Words alone", "both": "Both"}
    lists = [
        CardList(name, titles[name], "as retrieved", cards_of(result.retrieved, DEFAULT_ACCESS))
        for name, result in found.items()
    ]
    hits = {**screen.hits, **{name: result.retrieved for name, result in found.items()}}
    return replace(screen, compared=render_lists(*lists), hits=hits)
