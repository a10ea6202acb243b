"""BM25 on Milvus Lite: scores that rise with the likeness, as on a server."""

from __future__ import annotations

import asyncio
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction
from support.indexing_child import DIM, OneWord, open_store
from support.killed_states import node

TEXTS = ["oak", "leopard print mug", "zebra leopard leopard leopard", "oak oak wood"]
BEST_FIRST = ["3", "2", "1"]


def bm25(text: str, query: str) -> float:
    """The score by hand: Okapi BM25 with k1 = 1.5, b = 0.75."""
    documents = [one.split() for one in TEXTS]
    mean = sum(map(len, documents)) / len(documents)
    score = 0.0
    for word in query.split():
        holding = sum(word in document for document in documents)
        idf = math.log((len(documents) - holding + 0.5) / (holding + 0.5) + 1)
        times = text.split().count(word)
        score += idf * times * 2.5 / (times + 1.5 * (0.25 + 0.75 * len(text.split()) / mean))
    return score


ADDED = 0 if version("milvus-lite") >= "3.2.2" else 1
"""3.2.0 takes negative scores for distances of COSINE: all are 1 too high, the best the highest."""

EXPECTED = {
    str(i): pytest.approx(bm25(text, "leopard wood") + ADDED, abs=1e-4) for i, text in enumerate(TEXTS)
}


def filled(uri: Path, function: Any, texts: list[str]) -> MilvusVectorStore:
    store = open_store(str(uri), sparse_embedding_function=function)
    nodes = [node(str(i), 1) for i in range(len(texts))]
    for one, text in zip(nodes, texts, strict=True):
        one.set_content(text)
    store.add(nodes)
    return store


@pytest.fixture
def store(tmp_path: Path) -> MilvusVectorStore:
    return filled(tmp_path / "m.db", BM25BuiltInFunction(), TEXTS)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_best_has_the_highest_score(store: MilvusVectorStore, kind: str) -> None:
    query = VectorStoreQuery(query_str="leopard wood", similarity_top_k=4, mode=VectorStoreQueryMode.SPARSE)
    result = store.query(query) if kind == "sync" else asyncio.run(store.aquery(query))
    assert result.ids == BEST_FIRST
    assert result.similarities == [EXPECTED[row] for row in BEST_FIRST]


def test_fusion_and_cut_off_keep_the_best(store: MilvusVectorStore) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(DIM))
    retriever = index.as_retriever(similarity_top_k=4, vector_store_query_mode="sparse")
    fusion = QueryFusionRetriever(
        [retriever, retriever],
        llm=MockLLM(),
        num_queries=1,
        use_async=False,
        mode="simple",
        similarity_top_k=4,
    )
    hits = fusion.retrieve("leopard wood")
    assert [hit.node_id for hit in hits] == BEST_FIRST
    best = SimilarityPostprocessor(similarity_cutoff=0.9 + ADDED).postprocess_nodes(hits)
    assert [hit.node_id for hit in best] == ["3", "2"]


def test_hits_of_the_client_agree(store: MilvusVectorStore) -> None:
    (hits,) = store.client.search(
        "images", data=["leopard wood"], anns_field="sparse_embedding", limit=4, output_fields=["text"]
    )
    assert {hit["id"]: hit["distance"] for hit in hits} == {row: EXPECTED[row] for row in BEST_FIRST}
    assert list(getattr(hits, "distances", [hit["distance"] for hit in hits])) == [
        EXPECTED[row] for row in BEST_FIRST
    ]
    assert [hit["entity"]["text"] for hit in hits] == [TEXTS[int(row)] for row in BEST_FIRST]


@pytest.mark.parametrize("bounds", [{"radius": 0.9}, {"radius": 0.1, "range_filter": 0.9}])
def test_bounds_that_lite_takes_for_others_are_refused(
    store: MilvusVectorStore, bounds: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="drop the hits that score too low"):
        store.client.search(
            "images", data=["leopard"], anns_field="sparse_embedding", search_params={"params": bounds}
        )


def test_other_scores_stay_as_they_are(tmp_path: Path) -> None:
    store = filled(tmp_path / "m.db", OneWord(), ["1", "2"])
    query = VectorStoreQuery(query_str="2", similarity_top_k=2, mode=VectorStoreQueryMode.SPARSE)
    if not ADDED:  # 3.2.0 compares all sparse vectors by BM25
        assert store.query(query).similarities == [1.0]
    opposite = [-one for one in node("1", 1).embedding or []]
    result = store.query(VectorStoreQuery(query_embedding=opposite, similarity_top_k=2))
    assert result.similarities is not None
    assert result.similarities[-1] < 0
