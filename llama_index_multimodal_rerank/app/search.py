"""A search: what is asked and what was found, as values, so that many can run side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.vector_stores.types import MetadataFilters

from ..agents.results import audit_word, file_name, title
from ..images.access import DEFAULT_ACCESS
from ..reranking.options import StrategyName
from ..schema.query import ImageTextQuery
from .audit_words import audit_in_words
from .collections import Collection

if TYPE_CHECKING:
    from ..images.sources import ImageSource

Strategy = Literal["none"] | StrategyName
STRATEGIES: tuple[str, ...] = ("none", *get_args(StrategyName))
Sides = Literal["composed", "image", "text"]

MAX_TOP_K = 1000
TITLE_KEYS = ("title", "name")


@dataclass(frozen=True)
class SearchRequest:
    """What is asked.

    Attributes:
        text: words; may be empty if there is a picture.
        image: the query picture: a path, bytes, or a Pillow image; no URL.
        top_k: pictures to find, and to rerank; 1 to ``MAX_TOP_K``.
        strategy: how to rerank; ``"none"`` to leave the order as retrieved.
        filters: conditions that all pictures found meet; see :func:`.filters.parse_filters`.
        keep_sheets: whether the result holds the sheets that the model saw.

    Raises:
        ValueError: there is neither picture nor words, or a value is none of those allowed.
    """

    text: str = ""
    image: ImageSource | None = field(default=None, repr=False)
    top_k: int = 9
    strategy: Strategy = "none"
    filters: MetadataFilters | None = None
    keep_sheets: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.strip())
        if self.image is None and not self.text:
            raise ValueError("there is nothing to look for: give a picture, words, or both")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise ValueError(f"the number of results must be 1 to {MAX_TOP_K}, got {self.top_k}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"the strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}")

    @property
    def sides(self) -> Sides:
        """Whether it asks with picture and words, with a picture, or with words."""
        if self.image is None:
            return "text"
        return "composed" if self.text else "image"

    def only(self, sides: Sides) -> SearchRequest:
        """Return the request with one side alone; ``"composed"`` leaves it as it is.

        Raises:
            ValueError: it does not have that side.
        """
        if sides == "image":
            return replace(self, text="")
        return replace(self, image=None) if sides == "text" else self


@dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
        rank: place in its list, from 1.
        id: of its node, to search on from it.
        file: name of its file; None for a picture without one.
        title: ``metadata["title"]`` or ``["name"]``, else its caption; None without.
        score: similarity where retrieved; where reranked the reranker's, never rising down the list.
        was: place in the list as retrieved, from 1.
        unreadable: why the reranker could not look at it, or None.
        node: the node as the store returned it, with its metadata.
    """

    rank: int
    id: str
    file: str | None
    title: str | None
    score: float | None
    was: int
    unreadable: str | None
    node: BaseNode = field(repr=False)

    @property
    def moved(self) -> int:
        """By how many places reranking moved it up; negative for down, 0 where it stayed."""
        return self.was - self.rank

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known of the picture, without what the reranker wrote."""
        own = self.node.metadata
        return {
            key: value
            for key, value in own.items()
            if not key.startswith("rerank_") and key != "retrieval_score"
        }


@dataclass(frozen=True)
class SearchResult:
    """What was found.

    Attributes:
        request: what was asked.
        retrieved: the pictures as retrieved, nearest first.
        reranked: the same pictures as reranked; None with ``strategy="none"``, and where nothing was found.
        reason: the reranker's words why its first is the first, with places as ``#1``; or None.
        caption: what the reranker saw in the query picture, or None.
        audit: what was right and wrong with its answers, in sentences; None without reranking.
        audit_word: the same in a word: ``"clean"``, ``"repaired"`` or ``"not reranked"``.
        seconds: of each stage in order: ``"embedding"`` the query, ``"search"`` in Milvus, ``"loading"`` the
            reranker (once), ``"reranking"``.
        query: what was looked for, with its vector.
        sheets: the sheets that the model saw, in the order asked, as PNG files; with ``keep_sheets``.
    """

    request: SearchRequest
    retrieved: tuple[Hit, ...]
    reranked: tuple[Hit, ...] | None
    reason: str | None
    caption: str | None
    audit: str | None
    audit_word: str | None
    seconds: Mapping[str, float]
    query: ImageTextQuery = field(repr=False)
    sheets: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def hits(self) -> tuple[Hit, ...]:
        """The last list: reranked if there is one, else retrieved."""
        return self.retrieved if self.reranked is None else self.reranked


def search(collection: Collection, request: SearchRequest) -> SearchResult:
    """Retrieve, and rerank if that is asked for. Any number of threads may do so at once.

    Args:
        collection: what is searched.
        request: what is asked.

    Raises:
        ImageLoadError: the query picture cannot be read; a ValueError.
        ValueError: a filter is none that Milvus can answer, or the model embeds no words alone.
        OSError: Milvus, or the reranker, cannot be reached.
        ModelCallError: the reranker gave no answer.
    """
    return rerank(collection, retrieve(collection, request))


def retrieve(collection: Collection, request: SearchRequest) -> SearchResult:
    """Return what is nearest, whatever strategy the request names; :func:`rerank` goes on from there.

    Arguments and errors as for :func:`search`.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "embedding"):
        query = _embedded_query(collection, request)
    with _timed(seconds, "search"):
        retriever = collection.index.as_retriever(similarity_top_k=request.top_k, filters=request.filters)
        found = retriever.retrieve(query)
    places = {hit.node.node_id: place for place, hit in enumerate(found, start=1)}
    return SearchResult(request, _hits(found, places), None, None, None, None, None, seconds, query)


def rerank(collection: Collection, result: SearchResult) -> SearchResult:
    """Rerank what was retrieved, as its request says: by no strategy, and of nothing, it stays as it is.

    Args:
        collection: what was searched.
        result: of :func:`retrieve`.

    Raises:
        OSError: the reranker cannot be reached.
        ModelCallError: it gave no answer.
    """
    request, seconds = result.request, dict(result.seconds)
    if request.strategy == "none" or not result.retrieved:
        return result
    found = [NodeWithScore(node=hit.node, score=hit.score) for hit in result.retrieved]
    with _timed(seconds, "loading"):
        collection.models.load_reranker()
    with _sheet_folder(request) as folder:
        reranker = collection.models.reranker(request.strategy, top_n=len(found), save_sheets=folder)
        with _timed(seconds, "reranking"):
            ranked = reranker.postprocess_nodes(found, query_bundle=result.query)
        sheets = () if folder is None else tuple(path.read_bytes() for path in sorted(folder.iterdir()))
    said = ranked[0].node.metadata
    return replace(
        result,
        reranked=_hits(ranked, {hit.id: hit.was for hit in result.retrieved}),
        reason=said.get("rerank_reason"),
        caption=said.get("rerank_query_caption"),
        audit=audit_in_words(said.get("rerank_audit") or {}),
        audit_word=audit_word(ranked),
        seconds=seconds,
        sheets=sheets,
    )


def search_sides(
    collection: Collection, request: SearchRequest, sides: Sequence[Sides] = get_args(Sides)
) -> dict[Sides, SearchResult]:
    """Search with picture and words, with the picture alone and with the words alone, to compare them.

    Args:
        collection: what is searched.
        request: asks with both.
        sides: which of the three.

    Raises:
        ValueError: the request does not have both sides; and as :func:`search`.
    """
    if request.sides != "composed":
        raise ValueError("to compare both sides, give a picture and words")
    return {each: search(collection, request.only(each)) for each in sides}


def _embedded_query(collection: Collection, request: SearchRequest) -> ImageTextQuery:
    """Return the query with its vector. A picture is read once, whole, and within the limits of images/."""
    image = None if request.image is None else DEFAULT_ACCESS.check(request.image).data
    query = ImageTextQuery(request.text, image=image)
    vector = collection.models.embed_model.get_agg_embedding_from_queries(query.embedding_strs)
    return ImageTextQuery(request.text, image=image, embedding=vector)


def _hits(found: Sequence[NodeWithScore], places: Mapping[str, int]) -> tuple[Hit, ...]:
    return tuple(
        Hit(
            rank,
            hit.node.node_id,
            file_name(hit.node),
            title(hit.node, TITLE_KEYS),
            hit.score,
            places[hit.node.node_id],
            hit.node.metadata.get("rerank_unreadable"),
            hit.node,
        )
        for rank, hit in enumerate(found, start=1)
    )


@contextmanager
def _sheet_folder(request: SearchRequest) -> Iterator[Path | None]:
    if not request.keep_sheets:
        yield None
        return
    with TemporaryDirectory(prefix="sheets-") as folder:
        yield Path(folder)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
