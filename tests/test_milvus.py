"""milvus_store on a Milvus Lite file: reopen, mismatch, filters, delete, upsert, loops, idle gaps."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_picture
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction
from pymilvus import DataType, MilvusClient

from llama_index_multimodal_rerank import (
    EmbeddingMismatchError,
    ImageTextQuery,
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
    milvus_store,
)


def fill(store: MilvusVectorStore, model: VisualizedBGEEmbedding, folder: Path, **options: object) -> None:
    store.add(list(model(load_image_nodes(folder, **options))))  # type: ignore[arg-type]


def search(store: MilvusVectorStore, vector: list[float], top_k: int = 10, **options: object) -> list[str]:
    query = VectorStoreQuery(query_embedding=vector, similarity_top_k=top_k, **options)  # type: ignore[arg-type]
    return [node.image_path for node in store.query(query).nodes]  # type: ignore[union-attr]


@pytest.fixture
def store(embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path) -> MilvusVectorStore:
    store = milvus_store(tmp_path / "m.db", embed_model)
    fill(store, embed_model, pictures[0].parent, metadata=lambda path: {"number": int(path.stem[-1])})
    return store


def test_it_is_the_standard_store_with_safe_settings(store: MilvusVectorStore) -> None:
    assert type(store) is MilvusVectorStore
    index = store.client.describe_index("images", "embedding")
    # HNSW on Lite can lose rows after compaction (milvus-lite #369).
    assert (index["index_type"], index["metric_type"]) == ("FLAT", "COSINE")
    assert store.similarity_metric == "COSINE"
    assert store.upsert_mode


def test_a_second_process_reopens_the_file_and_answers_the_same(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    script = """
import json, sys
from llama_index.core import VectorStoreIndex
from llama_index_multimodal_rerank import *
uri, model, folder, query, fill = sys.argv[1:]
embed_model = VisualizedBGEEmbedding(model_name=model, device="cpu", dtype="float32")
store = milvus_store(uri, embed_model)
if fill == "fill":
    store.add(list(embed_model(load_image_nodes(folder))))
index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
hits = index.as_retriever(similarity_top_k=6).retrieve(ImageTextQuery("a mug", image_path=query))
print(json.dumps([[hit.node.image_path, hit.score] for hit in hits]))
"""
    arguments = [str(tmp_path / "m.db"), embed_model.model_name, str(pictures[0].parent), str(pictures[1])]
    answers = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", script, *arguments, step], check=True, capture_output=True, text=True
            ).stdout.splitlines()[-1]
        )
        for step in ("fill", "reopen")
    ]
    assert len(answers[0]) == 6
    assert [path for path, _ in answers[0]] == [path for path, _ in answers[1]]
    np.testing.assert_allclose([s for _, s in answers[0]], [s for _, s in answers[1]], atol=1e-6)


def lite_uri(tmp_path: Path) -> Path:
    return tmp_path / "m.db"


def test_a_released_collection_is_loaded_on_opening(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store.client.release_collection("images")
    again = milvus_store(lite_uri(tmp_path), embed_model)
    assert search(again, embed_model.get_image_embedding(pictures[2]), 1) == [str(pictures[2])]
    assert len(again.get_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="number", value=2)]))) == 1


# -- what the collection remembers -----------------------------------------------------------


def test_another_model_is_refused_and_named(
    store: MilvusVectorStore, tiny_checkpoint: Path, tmp_path: Path, embed_model: VisualizedBGEEmbedding
) -> None:
    turned = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", apply_exif_orientation=True
    )
    with pytest.raises(
        EmbeddingMismatchError, match="apply_exif_orientation: collection 'False', embed_model 'True'"
    ):
        milvus_store(lite_uri(tmp_path), turned)
    with pytest.raises(EmbeddingMismatchError, match="metric: collection 'COSINE', embed_model 'IP'"):
        milvus_store(lite_uri(tmp_path), embed_model, similarity_metric="ip")

    other = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu")
    weights = other.model
    weights._weights_sha256 = "0" * 64
    with pytest.raises(EmbeddingMismatchError, match=f"weights_sha256: collection .*'{'0' * 64}'"):
        milvus_store(lite_uri(tmp_path), other)
    # overwrite is the way out, and the collection then is the other model's
    assert milvus_store(lite_uri(tmp_path), other, overwrite=True) is not None
    with pytest.raises(EmbeddingMismatchError):
        milvus_store(lite_uri(tmp_path), embed_model)


def test_a_collection_of_unknown_origin_is_refused(
    embed_model: VisualizedBGEEmbedding, tmp_path: Path
) -> None:
    foreign = MilvusVectorStore(
        uri=str(lite_uri(tmp_path)), dim=64, collection_name="images", use_async_client=False
    )
    foreign.add([TextNode(text="a", embedding=[0.0] * 64)])
    with pytest.raises(EmbeddingMismatchError, match="was not made by milvus_store"):
        milvus_store(lite_uri(tmp_path), embed_model)


def test_an_empty_collection_left_by_an_interruption_is_adopted(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    MilvusVectorStore(
        uri=str(lite_uri(tmp_path)),
        dim=64,
        collection_name="images",
        similarity_metric="COSINE",
        use_async_client=False,
    )
    store = milvus_store(lite_uri(tmp_path), embed_model)
    fill(store, embed_model, pictures[0].parent)
    assert len(search(store, [1.0] * 64)) == 6


@pytest.mark.parametrize("metric", ["l2", "L2", "euclidean", "cosin"])
def test_metrics_that_would_turn_scores_around_are_refused(
    embed_model: VisualizedBGEEmbedding, tmp_path: Path, metric: str
) -> None:
    with pytest.raises(ValueError, match=rf"'COSINE', 'IP'\), got '{metric}'"):
        milvus_store(lite_uri(tmp_path), embed_model, similarity_metric=metric)


def test_uri_mistakes_are_explained(embed_model: VisualizedBGEEmbedding, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ending in '\.db'.*got 'catalog'"):
        milvus_store("catalog", embed_model)
    with pytest.raises(ConnectionError, match=r"cannot open Milvus at 'http://127\.0\.0\.1:9'"):
        milvus_store("http://127.0.0.1:9", embed_model, timeout=1)
    nested = tmp_path / "a" / "b" / "m.db"
    milvus_store(nested, embed_model)
    assert nested.exists()


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
    assert len(search(store, [1.0] * 64)) == 6
    store.delete(node.ref_doc_id)
    assert str(pictures[0]) not in search(store, [1.0] * 64)
    store.delete_nodes([image_node(pictures[1]).node_id])
    assert sorted(search(store, [1.0] * 64)) == [str(path) for path in pictures[2:]]


def test_a_changed_picture_replaces_its_row(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    draw_picture(50).save(pictures[0])
    fill(store, embed_model, pictures[0].parent)
    assert len(search(store, [1.0] * 64, 20)) == 6
    result = store.query(
        VectorStoreQuery(query_embedding=embed_model.get_image_embedding(pictures[0]), similarity_top_k=1)
    )
    assert result.nodes is not None
    assert result.similarities is not None
    assert result.nodes[0].metadata["file_name"] == "picture-0.png"
    assert result.similarities[0] == pytest.approx(1.0, abs=1e-5)


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


def test_writes_are_flushed_before_the_next_search(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding
) -> None:
    flushed: list[str] = []
    flush = store.client.flush
    store.client.flush = lambda name: (flushed.append(name), flush(name))  # type: ignore[method-assign]
    for _ in range(3):
        assert len(search(store, [1.0] * 64)) == 6
    assert flushed == ["images"]
    store.add(list(embed_model([image_node(draw_picture(9))])))
    assert flushed == ["images"]
    assert len(search(store, [1.0] * 64)) == 7
    assert flushed == ["images"] * 2


class CuttingProxy:
    """Forwards TCP connections, and can cut all that are open, as an idle timeout does."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            self.open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()

    def cut(self) -> None:
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.open.clear()


@pytest.fixture
def proxy(store: MilvusVectorStore) -> Iterator[CuttingProxy]:
    host, port = store.client._handler._address.split(":")
    proxy = CuttingProxy((host, int(port)))
    yield proxy
    proxy.listener.close()
    proxy.cut()


def test_a_connection_cut_while_idle_is_made_again(
    proxy: CuttingProxy, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    remote = milvus_store(proxy.uri, embed_model)
    retriever = VectorStoreIndex.from_vector_store(remote, embed_model=embed_model).as_retriever()
    query = ImageTextQuery("", image_path=str(pictures[1]))
    for _ in range(3):
        assert retriever.retrieve(query)[0].node.image_path == str(pictures[1])
        assert asyncio.run(retriever.aretrieve(query))[0].node.image_path == str(pictures[1])
        proxy.cut()


# -- hybrid ----------------------------------------------------------------------------------


def test_hybrid_mistakes_end_in_an_exception_not_in_an_exit(
    embed_model: VisualizedBGEEmbedding, tmp_path: Path, pictures: list[Path]
) -> None:
    dense = milvus_store(lite_uri(tmp_path), embed_model)
    fill(dense, embed_model, pictures[0].parent)
    with pytest.raises(ValueError, match="made without sparse vectors"):
        milvus_store(lite_uri(tmp_path), embed_model, sparse_embedding_function=BM25BuiltInFunction())
    bm25 = BM25BuiltInFunction()
    milvus_store(lite_uri(tmp_path), embed_model, collection_name="hybrid", sparse_embedding_function=bm25)
    with pytest.raises(ValueError, match="is hybrid: pass the sparse_embedding_function"):
        milvus_store(lite_uri(tmp_path), embed_model, collection_name="hybrid")


def test_hybrid_search_with_bm25(
    embed_model: VisualizedBGEEmbedding, tmp_path: Path, pictures: list[Path]
) -> None:
    words = ["leopard print", "zebra stripes", "", "oak wood", "red brick", "blue waves"]
    store = milvus_store(lite_uri(tmp_path), embed_model, sparse_embedding_function=BM25BuiltInFunction())
    fill(store, embed_model, pictures[0].parent, text=lambda path: words[int(path.stem[-1])])
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    sparse = index.as_retriever(similarity_top_k=1, vector_store_query_mode="sparse")
    assert sparse.retrieve(ImageTextQuery("zebra"))[0].node.text == "zebra stripes"
    hybrid = index.as_retriever(similarity_top_k=6, vector_store_query_mode="hybrid")
    hits = hybrid.retrieve(ImageTextQuery("brick", image_path=str(pictures[2])))
    assert {hits[0].node.text, hits[1].node.text} == {"", "red brick"}  # best dense and best sparse hit
    assert len(hybrid.retrieve(ImageTextQuery("", image_path=str(pictures[0])))) == 6


def test_arguments_reach_the_store_and_the_client(
    embed_model: VisualizedBGEEmbedding, tmp_path: Path
) -> None:
    store = milvus_store(
        lite_uri(tmp_path),
        embed_model,
        collection_name="typed",
        scalar_field_names=["price"],
        scalar_field_types=[DataType.DOUBLE],
        batch_size=7,
        timeout=30,
    )
    fields = {field["name"] for field in store.client.describe_collection("typed")["fields"]}
    assert "price" in fields
    assert store.batch_size == 7
    assert isinstance(store.client, MilvusClient)
