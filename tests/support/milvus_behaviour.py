"""What milvus_store promises, wherever Milvus runs.

``test_milvus.py`` collects these tests on a Milvus Lite file, ``test_milvus_server.py`` on a server; each
says in its fixture ``place`` where.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction
from pymilvus import DataType, MilvusClient

from llama_index_multimodal_rerank import (
    EmbeddingMismatchError,
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
    milvus_store,
)

from .drawing import draw_picture
from .tcp_proxy import CuttingProxy
from .vlm_doubles import Scripted


@dataclass(frozen=True)
class Place:
    """Where a test keeps its pictures: a collection that it alone uses."""

    uri: str
    collection: str = "images"
    sparse: bool = True  # whether this Milvus knows sparse vectors (2.4)
    bm25: bool = True  # and text matching of its own (2.5)
    infix: bool = True  # whether it finds a part of a text that is not its beginning (2.5)
    consistency_level: str = "Session"  # the store's default
    every: int = 1  # every n-th of many cases is tried: a server takes 0.2 seconds a request

    def open(self, embed_model: VisualizedBGEEmbedding, **options: Any) -> MilvusVectorStore:
        options = {"consistency_level": self.consistency_level, **options}
        return milvus_store(self.uri, embed_model, collection_name=self.collection, **options)


def fill(store: MilvusVectorStore, model: VisualizedBGEEmbedding, folder: Path, **options: object) -> None:
    store.add(list(model(load_image_nodes(folder, **options))))  # type: ignore[arg-type]


def search(store: MilvusVectorStore, vector: list[float], top_k: int = 10, **options: object) -> list[str]:
    query = VectorStoreQuery(query_embedding=vector, similarity_top_k=top_k, **options)  # type: ignore[arg-type]
    return [node.image_path for node in store.query(query).nodes]  # type: ignore[union-attr]


@pytest.fixture
def store(place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> MilvusVectorStore:
    store = place.open(embed_model)
    fill(store, embed_model, pictures[0].parent, metadata=lambda path: {"number": int(path.stem[-1])})
    return store


def test_composed_query_finds_what_the_vectors_say(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    query = embed_model.get_image_text_embedding("a mug with this", pictures[3])
    expected = {
        str(path): sum(a * b for a, b in zip(query, embed_model.get_image_embedding(path), strict=True))
        for path in pictures
    }
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever(
        similarity_top_k=6
    )
    hits = retriever.retrieve(ImageTextQuery("a mug with this", image_path=str(pictures[3])))
    assert {hit.node.image_path: hit.score for hit in hits} == pytest.approx(expected, abs=1e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_another_client_reads_what_was_written(
    store: MilvusVectorStore, place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    again = place.open(embed_model)
    assert search(again, embed_model.get_image_embedding(pictures[4]), 1) == [str(pictures[4])]


def test_a_released_collection_is_loaded_on_opening(
    store: MilvusVectorStore, place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    store.client.release_collection(place.collection)
    again = place.open(embed_model)
    assert search(again, embed_model.get_image_embedding(pictures[2]), 1) == [str(pictures[2])]
    assert len(again.get_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="number", value=2)]))) == 1


def test_an_index_that_the_collection_does_not_have_is_refused(
    store: MilvusVectorStore, place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    """The collection would be searched with the one that it has, and nobody would know."""
    own = store.client.describe_index(place.collection, "embedding")["index_type"]
    with pytest.raises(ValueError, match=f"index_type: collection '{own}', index_config 'HNSW'"):
        place.open(embed_model, index_config={"index_type": "HNSW", "M": 16})
    again = place.open(embed_model, index_config={"index_type": own})
    assert search(again, embed_model.get_image_embedding(pictures[4]), 1) == [str(pictures[4])]


def test_reranked_query(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    engine = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever(
        similarity_top_k=6
    )
    query = ImageTextQuery("a mug with this", image_path=str(pictures[3]))
    hits = engine.retrieve(query)
    rerank = Phi3VisionRerank(model=Scripted("Ranking: [6] > [5] > [4] > [3] > [2] > [1]"), top_n=6)
    ranked = rerank.postprocess_nodes(hits, query_bundle=query)
    assert [hit.node.node_id for hit in ranked] == [hit.node.node_id for hit in reversed(hits)]


# -- what the collection remembers -----------------------------------------------------------


def test_another_model_is_refused_and_named(
    store: MilvusVectorStore, place: Place, tiny_checkpoint: Path, embed_model: VisualizedBGEEmbedding
) -> None:
    turned = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", apply_exif_orientation=True
    )
    with pytest.raises(
        EmbeddingMismatchError, match="apply_exif_orientation: collection 'False', embed_model 'True'"
    ):
        place.open(turned)
    with pytest.raises(EmbeddingMismatchError, match="metric: collection 'COSINE', embed_model 'IP'"):
        place.open(embed_model, similarity_metric="ip")

    other = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu")
    weights = other.model
    weights._weights_sha256 = "0" * 64
    with pytest.raises(EmbeddingMismatchError, match=f"weights_sha256: collection .*'{'0' * 64}'"):
        place.open(other)
    # overwrite is the way out, and the collection then is the other model's
    assert place.open(other, overwrite=True) is not None
    with pytest.raises(EmbeddingMismatchError):
        place.open(embed_model)


def test_a_collection_of_unknown_origin_is_refused(place: Place, embed_model: VisualizedBGEEmbedding) -> None:
    foreign = MilvusVectorStore(
        uri=place.uri, dim=embed_model.dim, collection_name=place.collection, use_async_client=False
    )
    foreign.add([TextNode(text="a", embedding=[0.0] * embed_model.dim)], force_flush=True)
    with pytest.raises(EmbeddingMismatchError, match="was not made by milvus_store"):
        place.open(embed_model)


def test_an_empty_collection_left_by_an_interruption_is_adopted(
    place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    MilvusVectorStore(
        uri=place.uri,
        dim=embed_model.dim,
        collection_name=place.collection,
        similarity_metric="COSINE",
        use_async_client=False,
    )
    store = place.open(embed_model)
    fill(store, embed_model, pictures[0].parent)
    assert len(search(store, [1.0] * store.dim)) == 6


# -- filters, delete, upsert -----------------------------------------------------------------


def test_filters(store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key="number", value=2, operator=FilterOperator.GTE),
            MetadataFilter(key="file_name", value="picture-5.png", operator=FilterOperator.NE),
        ]
    )
    retriever = index.as_retriever(similarity_top_k=10, filters=filters)
    hits = retriever.retrieve(ImageTextQuery("a mug", image_path=str(pictures[0])))
    assert {hit.node.metadata["number"] for hit in hits} == {2, 3, 4}


def test_delete_takes_one_picture_and_nothing_else(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    node = image_node(pictures[0])
    store.delete("None")  # would delete every row whose node has no parent
    assert len(search(store, [1.0] * store.dim)) == 6
    store.delete(node.ref_doc_id)
    assert str(pictures[0]) not in search(store, [1.0] * store.dim)
    store.delete_nodes([image_node(pictures[1]).node_id])
    assert sorted(search(store, [1.0] * store.dim)) == [str(path) for path in pictures[2:]]


def test_a_changed_picture_replaces_its_row(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    draw_picture(50).save(pictures[0])
    fill(store, embed_model, pictures[0].parent)
    assert len(search(store, [1.0] * store.dim, 20)) == 6
    result = store.query(
        VectorStoreQuery(query_embedding=embed_model.get_image_embedding(pictures[0]), similarity_top_k=1)
    )
    assert result.nodes is not None
    assert result.similarities is not None
    assert result.nodes[0].metadata["file_name"] == "picture-0.png"
    assert result.similarities[0] == pytest.approx(1.0, abs=1e-5)


# -- in step with a folder -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["milvus", "simple"])
@pytest.mark.parametrize("run", ["run", "arun"])
def test_a_store_in_step_with_a_folder(
    place: Place,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    tmp_path: Path,
    run: str,
    kind: str,
) -> None:
    store = place.open(embed_model) if kind == "milvus" else SimpleVectorStore()
    docstore = SimpleDocumentStore()
    by_name = {image_node(path).node_id: path.name for path in pictures}

    def update() -> tuple[list[str], list[str]]:
        """Run the pipeline; return the names of the pictures embedded, and of those that are found."""
        pipeline = IngestionPipeline(
            transformations=[embed_model],
            vector_store=store,
            docstore=docstore,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        )
        nodes = load_image_nodes(pictures[0].parent)
        embedded = (
            pipeline.run(documents=nodes) if run == "run" else asyncio.run(pipeline.arun(documents=nodes))
        )
        found = store.query(VectorStoreQuery(query_embedding=[1.0] * 64, similarity_top_k=99)).ids
        names = sorted(by_name[node_id] for node_id in found or [])
        assert sorted(by_name[node_id] for node_id in docstore.docs) == names
        return sorted(node.metadata["file_name"] for node in embedded), names

    names = [path.name for path in pictures]
    assert update() == (names, names)
    assert update() == ([], names)
    pictures[2].unlink()
    assert update() == ([], [*names[:2], *names[3:]])
    assert update() == ([], [*names[:2], *names[3:]])
    # persisted, as one does between two days
    docstore.persist(str(tmp_path / "docstore.json"))
    docstore = SimpleDocumentStore.from_persist_path(str(tmp_path / "docstore.json"))
    pictures[0].unlink()
    pictures[1].unlink()
    draw_picture(70).save(pictures[4])
    draw_picture(2).save(pictures[2])
    assert update() == ([names[2], names[4]], names[2:])
    for path in pictures[2:]:
        path.unlink()
    draw_picture(0).save(pictures[0])
    assert update() == ([names[0]], names[:1])


# -- event loops, threads, connections -------------------------------------------------------


def test_async_works_in_one_event_loop_after_another(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever()
    for path in pictures[:3]:
        hits = asyncio.run(retriever.aretrieve(ImageTextQuery("", image_path=str(path))))
        assert hits[0].node.image_path == str(path)

    async def add_and_delete() -> None:
        node = TextNode(id_="t", text="words")
        await store.async_add(list(await embed_model.acall([node])))
        assert len(await store.aget_nodes(["t"])) == 1
        await store.adelete_nodes(["t"])
        assert await store.aget_nodes(["t"]) == []

    asyncio.run(add_and_delete())


def test_threads_share_a_store(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    vectors = [embed_model.get_image_embedding(path) for path in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda vector: search(store, vector, 1)[0], vectors * 4))
    assert found == [str(path) for path in pictures] * 4


@pytest.fixture
def proxy(store: MilvusVectorStore) -> Iterator[CuttingProxy]:
    host, port = store.client._get_connection()._address.split(":")
    proxy = CuttingProxy((host, int(port)))
    yield proxy
    proxy.close()


def test_a_connection_cut_while_idle_is_made_again(
    proxy: CuttingProxy, place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    remote = milvus_store(proxy.uri, embed_model, collection_name=place.collection)
    retriever = VectorStoreIndex.from_vector_store(remote, embed_model=embed_model).as_retriever()
    query = ImageTextQuery("", image_path=str(pictures[1]))
    for _ in range(3):
        assert retriever.retrieve(query)[0].node.image_path == str(pictures[1])
        assert asyncio.run(retriever.aretrieve(query))[0].node.image_path == str(pictures[1])
        proxy.cut()


# -- hybrid ----------------------------------------------------------------------------------

WORDS = ["leopard print", "zebra stripes", "", "oak wood", "red brick", "blue waves"]


class WordCounts(BaseSparseEmbeddingFunction):
    """Lexical weights of a toy: how often each word occurs."""

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        return [self._count(text) or {1: 1.0} for text in queries]

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        return [self._count(text) or {0: 1.0} for text in documents]

    @staticmethod
    def _count(text: str) -> dict[int, float]:
        return {2 + zlib.crc32(word.encode()) % 2**20: float(text.count(word)) for word in text.split()}


@pytest.fixture
def words(place: Place, request: pytest.FixtureRequest) -> Any:
    function: Any = request.param()
    if not place.sparse or (isinstance(function, BM25BuiltInFunction) and not place.bm25):
        pytest.skip(f"{type(function).__name__} is newer than this Milvus server")
    return function


@pytest.mark.parametrize("words", [WordCounts, BM25BuiltInFunction], indirect=True)
def test_hybrid_search(
    place: Place, words: Any, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    store = place.open(embed_model, sparse_embedding_function=words)
    fill(store, embed_model, pictures[0].parent, text=lambda path: WORDS[int(path.stem[-1])])
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    sparse = index.as_retriever(similarity_top_k=1, vector_store_query_mode="sparse")
    assert sparse.retrieve(ImageTextQuery("zebra"))[0].node.text == "zebra stripes"
    hybrid = index.as_retriever(similarity_top_k=6, vector_store_query_mode="hybrid")
    hits = hybrid.retrieve(ImageTextQuery("brick", image_path=str(pictures[2])))
    assert {hits[0].node.text, hits[1].node.text} == {"", "red brick"}  # best dense and best sparse hit
    assert len(hybrid.retrieve(ImageTextQuery("", image_path=str(pictures[0])))) == 6


def test_hybrid_mistakes_end_in_an_exception_not_in_an_exit(
    place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    dense = place.open(embed_model)
    fill(dense, embed_model, pictures[0].parent)
    with pytest.raises(ValueError, match="made without sparse vectors"):
        place.open(embed_model, sparse_embedding_function=BM25BuiltInFunction())
    if place.bm25:
        place.open(embed_model, overwrite=True, sparse_embedding_function=BM25BuiltInFunction())
        with pytest.raises(ValueError, match="is hybrid: pass the sparse_embedding_function"):
            place.open(embed_model)


def test_arguments_reach_the_store_and_the_client(place: Place, embed_model: VisualizedBGEEmbedding) -> None:
    store = place.open(
        embed_model,
        scalar_field_names=["price"],
        scalar_field_types=[DataType.DOUBLE],
        batch_size=7,
        timeout=30,
    )
    fields = {field["name"] for field in store.client.describe_collection(place.collection)["fields"]}
    assert "price" in fields
    assert store.batch_size == 7
    assert isinstance(store.client, MilvusClient)


def test_the_fingerprint_is_kept_with_the_collection(
    store: MilvusVectorStore, place: Place, embed_model: VisualizedBGEEmbedding
) -> None:
    properties = store.client.describe_collection(place.collection)["properties"]
    kept = json.loads(properties["llama_index_multimodal_rerank.embedding"])
    assert kept == {**embed_model.fingerprint, "metric": "COSINE"}
