"""milvus_store on a Milvus Lite file: what is promised everywhere, and what is special to Lite."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.vector_stores.milvus import MilvusVectorStore
from milvus_lite.engine import collection
from support.drawing import draw_picture
from support.milvus_behaviour import *  # noqa: F403 (the tests of every Milvus)
from support.milvus_behaviour import Place, search

from llama_index_multimodal_rerank import VisualizedBGEEmbedding, image_node, milvus_store


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "m.db"))


def test_overwriting_what_is_not_there_logs_no_error(
    place: Place, embed_model: VisualizedBGEEmbedding, caplog: pytest.LogCaptureFixture
) -> None:
    place.open(embed_model, overwrite=True)
    assert "does not exist" not in caplog.text


def test_it_is_the_standard_store_with_safe_settings(store: MilvusVectorStore) -> None:
    assert isinstance(store, MilvusVectorStore)
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


@pytest.mark.parametrize("metric", ["l2", "L2", "euclidean", "cosin"])
def test_metrics_that_would_turn_scores_around_are_refused(
    embed_model: VisualizedBGEEmbedding, tmp_path: Path, metric: str
) -> None:
    with pytest.raises(ValueError, match=rf"'COSINE', 'IP'\), got '{metric}'"):
        milvus_store(tmp_path / "m.db", embed_model, similarity_metric=metric)


def test_uri_mistakes_are_explained(embed_model: VisualizedBGEEmbedding, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ending in '\.db'.*got 'catalog'"):
        milvus_store("catalog", embed_model)
    with pytest.raises(ConnectionError, match=r"cannot open Milvus at 'http://127\.0\.0\.1:9'"):
        milvus_store("http://127.0.0.1:9", embed_model, timeout=1)
    nested = tmp_path / "a" / "b" / "m.db"
    milvus_store(nested, embed_model)
    assert nested.exists()


# -- event loops, threads, connections -------------------------------------------------------


def test_writes_are_flushed_before_the_next_search(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding
) -> None:
    flushed: list[str] = []
    flush = store.client.flush
    store.client.flush = lambda name: (flushed.append(name), flush(name))  # type: ignore[method-assign]
    for _ in range(3):
        assert len(search(store, [1.0] * store.dim)) == 6
    assert flushed == ["images"]
    store.add(list(embed_model([image_node(draw_picture(9))])))
    assert flushed == ["images"]
    assert len(search(store, [1.0] * store.dim)) == 7
    assert flushed == ["images"] * 2


@pytest.mark.parametrize("read", ["search", "query"])
def test_reading_while_another_thread_flushes_sees_all_rows(
    store: MilvusVectorStore, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """At the beginning of a flush, Lite looks for its rows in none of the places where they are."""
    flushing, resume = threading.Event(), threading.Event()
    new_log = collection.WAL

    def wait_for_log(**arguments: Any) -> Any:
        flushing.set()
        assert resume.wait(60)
        return new_log(**arguments)

    reads = {
        "search": lambda: search(store, [1.0] * store.dim),
        "query": lambda: store.client.query(store.collection_name, filter="id != ''", limit=10),
    }
    monkeypatch.setattr(collection, "WAL", wait_for_log)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reads["search"])  # flushes what was written before
        assert flushing.wait(60)
        second = pool.submit(reads[read])
        wait([second], timeout=1)
        resume.set()
        assert (len(first.result()), len(second.result())) == (6, 6)
