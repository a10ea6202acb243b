"""MTEBReranker: retrieval with an encoder, and whole lists reranked, as a search of mteb."""

from __future__ import annotations

import random
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType
from tqdm.auto import tqdm

from ...embeddings.image_text_embedding import ImageTextEmbedding
from .encoder import MTEBEncoder
from .inputs import check_modalities, document_node, in_parts, query_bundle
from .metadata import model_meta, own_name, revision_of

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import (
        CorpusDatasetType,
        EncodeKwargs,
        QueryDatasetType,
        RetrievalOutputType,
        TopRankedDocumentsType,
    )

QUERIES_AT_ONCE = 8

Ranked = list[tuple[str, float | None]]
"""Ids of documents with their scores, the best first."""


class MTEBReranker:
    """A reranker of this package, or any of LlamaIndex, for ``mteb.evaluate``.

    mteb's own way to rerankers asks about one document at a time; these see a list. So the first ``depth``
    documents of each query are reranked as one list, and all others stay behind them in retrieval order; so
    do those that the reranker leaves out (set its ``top_n`` to ``depth``).

    Scores are places, counted from the end: the order is kept exactly, also where the reranker gives equal
    scores. mteb's nAUC figures, which are about the size of scores, mean nothing then.

    Example:
        >>> import mteb  # doctest: +SKIP
        >>> reranker = Phi3VisionRerank(top_n=9, strategy="first_token", explain=False)  # doctest: +SKIP
        >>> model = MTEBReranker(reranker, VisualizedBGEEmbedding())  # doctest: +SKIP
        >>> mteb.evaluate(model, mteb.get_tasks(["CIRRIT2IRetrieval"]))  # doctest: +SKIP

    Args:
        reranker: who reranks.
        embed_model: who retrieves; a task that gives lists has them ordered by it. Default: only tasks that
            give lists can be done.
        depth: documents of a query that are reranked, 1 or more.
        lists_are_ordered: without ``embed_model``, lists that a task gives are in retrieval order, as those
            of ``task.convert_to_reranking`` are. Default: they are shuffled, with a seed from the query's id,
            since many data sets name the right ones first.

    Raises:
        ValueError: ``depth`` is below 1, or ``lists_are_ordered`` is set beside ``embed_model``.
        OSError: the checkpoint of ``embed_model`` is not there and cannot be fetched.
    """

    def __init__(
        self,
        reranker: BaseNodePostprocessor,
        embed_model: ImageTextEmbedding | None = None,
        *,
        depth: int = 9,
        lists_are_ordered: bool = False,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, got {depth}")
        if lists_are_ordered and embed_model is not None:
            raise ValueError(
                "lists_are_ordered is for lists that no embed_model orders: leave one of them out"
            )
        self.reranker, self.depth, self.lists_are_ordered = reranker, depth, lists_are_ordered
        self._encoder = None if embed_model is None else MTEBEncoder(embed_model)
        self._retriever = None if self._encoder is None else SearchEncoderWrapper(self._encoder)
        self._corpus: CorpusDatasetType | None = None
        name = str(getattr(reranker, "model_name", None) or reranker.class_name())
        retrieved = None if self._encoder is None else self._encoder.mteb_model_meta
        self.mteb_model_meta = model_meta(
            own_name(name, "" if retrieved is None else f"-over-{retrieved.name.rpartition('/')[2]}"),
            revision_of(
                {
                    "reranker": reranker.to_dict(),
                    "retriever": retrieved and retrieved.revision,
                    "depth": depth,
                    "lists_are_ordered": lists_are_ordered,
                }
            ),
            embed_dim=None,
            num_parameters=None,
            model_type="cross-encoder",
        )

    def index(
        self,
        corpus: CorpusDatasetType,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: EncodeKwargs,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the documents of a task.

        Raises:
            ValueError: the task has sound or films.
        """
        for side in (PromptType.query, PromptType.document):
            check_modalities(task_metadata, side)
        self._corpus = corpus
        if self._retriever is not None:
            self._retriever.index(
                corpus,
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                encode_kwargs=encode_kwargs,
                num_proc=num_proc,
            )

    def search(
        self,
        queries: QueryDatasetType,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: EncodeKwargs,
        top_ranked: TopRankedDocumentsType | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> RetrievalOutputType:
        """Return the ``top_k`` documents of each query, with scores that fall by 1 from place to place.

        Raises:
            ValueError: there are no documents, or neither lists nor an ``embed_model``.
            RerankBatchError: queries failed; see ``Phi3VisionRerank.rerank_batch``.
        """
        if self._corpus is None:
            raise ValueError("search before index: there are no documents")
        if self._retriever is not None:
            found = self._retriever.search(
                queries,
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                top_k=top_k,
                encode_kwargs=encode_kwargs,
                top_ranked=top_ranked,
                num_proc=num_proc,
            )
            lists: dict[str, Ranked] = {
                query: sorted(scores.items(), key=itemgetter(1), reverse=True)
                for query, scores in found.items()
            }
        elif top_ranked is not None:
            lists = {query: self._given(query, list(ids)) for query, ids in top_ranked.items()}
        else:
            raise ValueError(
                f"{task_metadata.name} gives no lists to rerank: give an embed_model to retrieve with"
            )
        places = {id_: place for place, id_ in enumerate(self._corpus["id"])}
        results: RetrievalOutputType = {}
        rows = tqdm(
            range(len(queries)), "Reranking", disable=not encode_kwargs.get("show_progress_bar", True)
        )
        for part in in_parts(list(range(len(queries))), QUERIES_AT_ONCE):
            asked, given = [], []
            for row in (queries[number] for number in part):
                ranked = lists.get(row["id"], [])[:top_k]
                given.append((row["id"], [id_ for id_, _ in ranked]))
                head = [
                    NodeWithScore(node=document_node(self._corpus[places[id_]], task_metadata), score=score)
                    for id_, score in ranked[: self.depth]
                ]
                asked.append((head, query_bundle(row, task_metadata)))
            for (query, ids), hits in zip(given, self._rerank(asked), strict=True):
                order = list(dict.fromkeys([*(hit.node.node_id for hit in hits), *ids]))
                results[query] = {id_: float(len(order) - place) for place, id_ in enumerate(order)}
            rows.update(len(part))
        rows.close()
        return results

    def _given(self, query: str, ids: list[str]) -> Ranked:
        if not self.lists_are_ordered:
            random.Random(query).shuffle(ids)  # noqa: S311 (no secret)
        return [(id_, None) for id_ in ids]

    def _rerank(self, asked: Sequence[tuple[list[NodeWithScore], Any]]) -> list[list[NodeWithScore]]:
        batch = getattr(self.reranker, "rerank_batch", None)
        if batch is None:
            return [self.reranker.postprocess_nodes(nodes, query) for nodes, query in asked]
        found: list[list[NodeWithScore]] = batch(asked, show_progress=False)
        return found
