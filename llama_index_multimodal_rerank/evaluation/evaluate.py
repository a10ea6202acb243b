"""evaluate: ask all queries of a benchmark, before and after reranking, whole and one side of them."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.base import BaseIndex
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore
from tqdm.auto import tqdm

from ..schema.query import ImageTextQuery
from .benchmark import Benchmark, BenchmarkQuery, Sides
from .query_results import RETRIEVED, QueryResult, RankedList
from .rankings import check_different_pictures, make_id_lookup, put_first
from .results import Evaluation, EvaluationProtocol
from .sources import Source, make_source

logger = logging.getLogger(__name__)

RERANKED = "reranked"
"""Name of the list of a reranker that was given without one."""

_TIMED_AFTER = 5
"""After so many queries it is said how long the run will take."""


def evaluate(
    benchmark: Benchmark,
    retriever: BaseRetriever | BaseIndex[Any],
    *,
    model: BaseEmbedding | str,
    reranker: BaseNodePostprocessor | Mapping[str, BaseNodePostprocessor] | None = None,
    rerank_depth: int | None = None,
    ablations: Sequence[Literal["image", "text"]] = ("image", "text"),
    show_progress: bool = True,
) -> Evaluation:
    """Ask all queries of a benchmark and score the answers.

    A query with picture and text is asked three times: with both, with its picture alone, and with its text
    alone. A benchmark of composed queries that one side can answer says nothing about composing.

    Interrupted (Ctrl-C), it returns what it has of the queries that were finished; ``protocol.complete`` is
    then False.

    Args:
        benchmark: from :func:`.cirr.load_cirr`, :func:`.fashion_iq.load_fashion_iq`,
            :func:`.circo.load_circo`, :func:`.labelled_queries.load_labelled_queries`, or made by hand.
        retriever: any retriever that returns enough pictures, or an index, which is asked for as many as are
            needed. Its nodes are found by ``metadata["image_id"]``, node id or file name, see
            :func:`.rankings.make_id_lookup`; :func:`.benchmark.gallery_nodes` makes such nodes.
        model: the embedding model, for the protocol; or a name for it. An index embeds queries with it.
        reranker: a postprocessor, its list is called ``"reranked"``; or several by the names of their lists.
            What one does not return follows in the order of retrieval.
        rerank_depth: how many of the first pictures a reranker is given. Default: all that are retrieved.
        ablations: with which side alone composed queries are asked, too. Give ``("image",)`` for a model that
            embeds no text alone, ``()`` for none. A benchmark without known answers is asked whole only.
        show_progress: show a progress bar, and after a few queries how long the run will take.

    Returns:
        The evaluation, with its protocol.

    Raises:
        TypeError: ``retriever`` is neither a retriever nor an index.
        ValueError: an argument is none of the allowed ones; too few pictures are retrieved; a picture is in a
            list twice, or is none of the gallery's.
        KeyboardInterrupt: interrupted before the first query was finished.
    """
    if wrong := [each for each in ablations if each not in ("image", "text")]:
        raise ValueError(f"ablations may hold 'image' and 'text', got {wrong[0]!r}")
    if rerank_depth is not None and rerank_depth < 1:
        raise ValueError(f"rerank_depth must be at least 1, got {rerank_depth}")
    rerankers = _named(reranker)
    depth = max(benchmark.depth, rerank_depth or 1)
    id_of = make_id_lookup(benchmark)
    excluded = max(len(query.excluded) for query in benchmark.queries)
    embed_model = model if isinstance(model, BaseEmbedding) else None
    source = make_source(retriever, benchmark, depth + excluded, id_of, embed_model)
    name, fingerprint = _describe_model(model)
    asker = _Asker(benchmark, source, id_of, rerankers, rerank_depth, depth, tuple(ablations))
    results = _ask_all(asker, benchmark.queries, show_progress)
    gallery = benchmark.gallery
    protocol = EvaluationProtocol(
        benchmark=benchmark.name,
        split=benchmark.split,
        queries=len(results),
        complete=len(results) == len(benchmark.queries),
        gallery="what the index holds" if gallery is None else gallery.kind,
        gallery_size=None if gallery is None else len(gallery.ids),
        reference=benchmark.reference,
        caption_join=benchmark.caption_join,
        model=name,
        fingerprint=fingerprint,
        reranker={key: _describe_reranker(each) for key, each in rerankers.items()} or None,
        rerank_depth=(rerank_depth or depth) if rerankers else None,
        seconds_per_query=_mean_seconds(results),
    )
    return Evaluation(protocol, tuple(each.name for each in benchmark.metrics), tuple(results))


def _ask_all(asker: _Asker, queries: Sequence[BenchmarkQuery], show_progress: bool) -> list[QueryResult]:
    results: list[QueryResult] = []
    start = time.monotonic()
    with tqdm(total=len(queries), desc="Evaluating", unit="query", disable=not show_progress) as bar:
        try:
            for query in queries:
                results.append(asker.ask(query))
                bar.update()
                if len(results) == _TIMED_AFTER < len(queries):
                    message = _time_needed(time.monotonic() - start, len(queries))
                    logger.info(message)
                    if show_progress:
                        bar.write(message, file=sys.stderr)
        except KeyboardInterrupt:
            if not results:
                raise
            logger.warning("Interrupted after %d of %d queries.", len(results), len(queries))
    return results


class _Asker:
    """Makes all lists of one query."""

    def __init__(
        self,
        benchmark: Benchmark,
        source: Source,
        id_of: Callable[[BaseNode], str],
        rerankers: Mapping[str, BaseNodePostprocessor],
        rerank_depth: int | None,
        depth: int,
        ablations: tuple[Literal["image", "text"], ...],
    ) -> None:
        self._benchmark = benchmark
        self._source = source
        self._id_of = id_of
        self._rerankers = rerankers
        self._rerank_depth = rerank_depth
        self._depth = depth
        self._ablations = ablations
        self._ranks_subsets = any(each.ranking == "subset" for each in benchmark.metrics)

    def ask(self, query: BenchmarkQuery) -> QueryResult:
        sides: list[Sides] = [query.sides]
        if query.sides == "composed" and query.relevant:
            sides += dict.fromkeys(self._ablations)
        lists: dict[tuple[Sides, str], RankedList] = {}
        for each in sides:
            lists |= {(each, name): ranked for name, ranked in self._lists(query, each).items()}
        return QueryResult(query.id_, query.groups, query.sides, lists)

    def _lists(self, query: BenchmarkQuery, sides: Sides) -> dict[str, RankedList]:
        start = time.perf_counter()
        subset_wanted = self._ranks_subsets and bool(query.subset)
        asked = query.ask(sides)
        if subset_wanted:
            asked = self._source.prepare(asked)
        everything = self._source.rank(asked)
        seconds = time.perf_counter() - start
        hits = self._without_excluded(everything, query)
        self._check_length(hits, query)
        subset = self._subset(query, asked, everything) if subset_wanted else []
        found = {RETRIEVED: self._ranked(query, hits, subset, seconds, "the retriever")}
        for name, reranker in self._rerankers.items():
            start = time.perf_counter()
            reranked = self._rerank(reranker, hits, asked)
            seconds = time.perf_counter() - start
            among = self._rerank(reranker, subset, asked) if subset else []
            found[name] = self._ranked(query, reranked, among, seconds, f"reranker {name!r}")
        return found

    def _without_excluded(self, hits: Sequence[NodeWithScore], query: BenchmarkQuery) -> list[NodeWithScore]:
        kept = [hit for hit in hits if self._id_of(hit.node) not in query.excluded]
        return kept[: self._depth]

    def _check_length(self, hits: Sequence[NodeWithScore], query: BenchmarkQuery) -> None:
        gallery = self._benchmark.gallery
        if gallery is None:
            return
        needed = min(self._depth, len(gallery.ids - {*query.excluded}))
        if len(hits) < needed:
            raise ValueError(
                f"query {query.id_!r}: {len(hits)} pictures were retrieved, and {needed} are needed (besides "
                f"{len(query.excluded)} that are taken out). Make the retriever with a larger "
                "similarity_top_k, or pass the index itself; and see that the whole gallery is indexed "
                f"({len(gallery.ids)} pictures)"
            )

    def _subset(
        self, query: BenchmarkQuery, asked: ImageTextQuery, ranked: Sequence[NodeWithScore]
    ) -> list[NodeWithScore]:
        hits = self._source.rank_among(asked, query.subset, ranked)
        found = [self._id_of(hit.node) for hit in hits]
        if missing := sorted({*query.subset} - {*found}):
            raise ValueError(
                f"query {query.id_!r}: {len(missing)} pictures of its subset were not retrieved, such as "
                f'{missing[0]!r}. An index finds them by metadata["image_id"], which gallery_nodes writes; a '
                "retriever must return the whole gallery, or else pass the index itself"
            )
        return hits

    def _rerank(
        self, reranker: BaseNodePostprocessor, hits: Sequence[NodeWithScore], asked: ImageTextQuery
    ) -> list[NodeWithScore]:
        first = list(hits[: self._rerank_depth])
        return put_first(reranker.postprocess_nodes(first, query_bundle=asked), hits) if first else []

    def _ranked(
        self,
        query: BenchmarkQuery,
        hits: Sequence[NodeWithScore],
        subset: Sequence[NodeWithScore],
        seconds: float,
        whose: str,
    ) -> RankedList:
        ids = tuple(self._id_of(hit.node) for hit in hits)
        subset_ids = tuple(self._id_of(hit.node) for hit in subset)
        for each in (ids, subset_ids):
            check_different_pictures(each, whose, query.id_)
        scores = {
            metric.name: metric.score(query.relevant, ids if metric.ranking == "gallery" else subset_ids)
            for metric in (self._benchmark.metrics if query.relevant else ())
        }
        return RankedList(ids, subset_ids, scores, seconds)


def _named(
    reranker: BaseNodePostprocessor | Mapping[str, BaseNodePostprocessor] | None,
) -> dict[str, BaseNodePostprocessor]:
    if reranker is None:
        return {}
    named = dict(reranker) if isinstance(reranker, Mapping) else {RERANKED: reranker}
    if RETRIEVED in named:
        raise ValueError(f"a reranker cannot be called {RETRIEVED!r}: that is the list before reranking")
    return named


def _describe_model(model: BaseEmbedding | str) -> tuple[str, str | None]:
    """Return a model's name, and the digest of its fingerprint if it has one."""
    if isinstance(model, str):
        return model, None
    fingerprint = getattr(model, "fingerprint", None)
    digest = None
    if fingerprint is not None:
        written = json.dumps(fingerprint, sort_keys=True, default=str)
        digest = hashlib.sha256(written.encode()).hexdigest()[:16]
    return f"{type(model).__name__}({model.model_name})", digest


def _describe_reranker(reranker: BaseNodePostprocessor) -> str:
    settings = {name: getattr(reranker, name, None) for name in ("model", "strategy", "top_n")}
    shown = [f"{name}={value}" for name, value in settings.items() if isinstance(value, (str, int))]
    return f"{type(reranker).__name__}({', '.join(shown)})"


def _mean_seconds(results: Sequence[QueryResult]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for result in results:
        for (_, name), ranked in result.lists.items():
            seconds.setdefault(name, []).append(ranked.seconds)
    return {name: sum(each) / len(each) for name, each in seconds.items()}


def _time_needed(seconds: float, count: int) -> str:
    whole = seconds / _TIMED_AFTER * count
    minutes = f"{whole / 60:.0f} minutes" if whole >= 120 else f"{whole:.0f} seconds"
    return f"{_TIMED_AFTER} of {count} queries took {seconds:.1f} seconds; all will take about {minutes}."
