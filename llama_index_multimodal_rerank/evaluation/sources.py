"""Where ranked lists come from: any retriever of LlamaIndex, or an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from ..schema.query import ImageTextQuery
from .benchmark import IMAGE_ID_KEY, Benchmark


class Source(Protocol):
    """Ranks pictures for a query."""

    def prepare(self, query: ImageTextQuery) -> ImageTextQuery:
        """Return the query as the other methods shall be given it."""
        ...

    def rank(self, query: ImageTextQuery) -> list[NodeWithScore]:
        """Rank the pictures of the gallery, as many as are needed."""
        ...

    def rank_among(
        self, query: ImageTextQuery, ids: Sequence[str], ranked: Sequence[NodeWithScore]
    ) -> list[NodeWithScore]:
        """Rank some pictures only.

        Args:
            query: the query.
            ids: the benchmark's ids of the pictures.
            ranked: what :meth:`rank` returned for the query.
        """
        ...


class IndexSource:
    """An index: asked for as many pictures as are needed, and for a subset by a filter on ``image_id``.

    A query with a subset is embedded once for both searches, if the embedding model is given.
    """

    def __init__(self, index: BaseIndex[Any], depth: int, embed_model: BaseEmbedding | None) -> None:
        self._index = index
        self._options = {} if embed_model is None else {"embed_model": embed_model}
        self._retriever = index.as_retriever(similarity_top_k=depth, **self._options)
        self._embed_model = embed_model

    def prepare(self, query: ImageTextQuery) -> ImageTextQuery:
        """Return the query with its vector, so that it is embedded once."""
        if self._embed_model is None:
            return query
        vector = self._embed_model.get_agg_embedding_from_queries(query.embedding_strs)
        return ImageTextQuery(
            query.query_str, image_path=query.image_path, image=query.image, embedding=vector
        )

    def rank(self, query: ImageTextQuery) -> list[NodeWithScore]:
        """Rank the pictures of the gallery."""
        return self._retriever.retrieve(query)

    def rank_among(
        self, query: ImageTextQuery, ids: Sequence[str], ranked: Sequence[NodeWithScore]
    ) -> list[NodeWithScore]:
        """Search once more, with a filter."""
        among = MetadataFilters(
            filters=[MetadataFilter(key=IMAGE_ID_KEY, value=list(ids), operator=FilterOperator.IN)]
        )
        retriever = self._index.as_retriever(similarity_top_k=len(ids), filters=among, **self._options)
        return retriever.retrieve(query)


class RetrieverSource:
    """A retriever: gives what it gives, and a subset only as far as its list holds it."""

    def __init__(self, retriever: BaseRetriever, id_of: Callable[[BaseNode], str]) -> None:
        self._retriever = retriever
        self._id_of = id_of

    def prepare(self, query: ImageTextQuery) -> ImageTextQuery:
        """Return the query as it is."""
        return query

    def rank(self, query: ImageTextQuery) -> list[NodeWithScore]:
        """Rank the pictures of the gallery."""
        return self._retriever.retrieve(query)

    def rank_among(
        self, query: ImageTextQuery, ids: Sequence[str], ranked: Sequence[NodeWithScore]
    ) -> list[NodeWithScore]:
        """Take the pictures out of the list."""
        wanted = set(ids)
        return [hit for hit in ranked if self._id_of(hit.node) in wanted]


def make_source(
    retriever: BaseRetriever | BaseIndex[Any],
    benchmark: Benchmark,
    depth: int,
    id_of: Callable[[BaseNode], str],
    embed_model: BaseEmbedding | None,
) -> Source:
    """Return the source of an evaluation.

    Args:
        retriever: a retriever or an index.
        benchmark: what is asked.
        depth: how many pictures are needed of a query.
        id_of: gives the benchmark's id of a node.
        embed_model: the embedding model, where it is known.

    Raises:
        TypeError: it is neither a retriever nor an index.
        ValueError: the retriever is known to return fewer pictures.
    """
    if isinstance(retriever, BaseIndex):
        return IndexSource(retriever, depth, embed_model)
    if not isinstance(retriever, BaseRetriever):
        raise TypeError(f"retriever must be a retriever or an index, got {type(retriever).__name__}")
    given = getattr(retriever, "similarity_top_k", None)
    gallery = benchmark.gallery
    if isinstance(given, int) and given < (depth if gallery is None else min(depth, len(gallery.ids))):
        raise ValueError(
            f"the retriever returns {given} pictures, {benchmark.name} needs {depth}: make it with "
            f"index.as_retriever(similarity_top_k={depth}), or pass the index itself"
        )
    return RetrieverSource(retriever, id_of)
