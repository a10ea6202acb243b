"""Many threads, several event loops, forked and spawned workers: the answers stay the same.

``benchmarks/soak.py`` does the same for minutes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from support.mixed_load import make_jobs, run
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.lazy import ForkedProcessError


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Phi3VisionRerank:
    folder = write_folder(tmp_path_factory.mktemp("tiny-phi3"))
    return Phi3VisionRerank(
        model=str(folder), device="cpu", dtype="float32", num_crops=1, strategy="first_token", caption=False,
        explain=False, top_n=6,
    )  # fmt: skip


def test_thirty_two_threads_of_mixed_queries(
    embed_model: VisualizedBGEEmbedding, reranker: Phi3VisionRerank, pictures: list[Path], tmp_path: Path
) -> None:
    report = run(make_jobs(embed_model, reranker, pictures, tmp_path / "m.db"), threads=32, seconds=5)
    assert report.errors == []
    assert report.wrong == []
    assert set(report.done) == {
        "text", "picture", "composed", "batch", "retrieve", "aretrieve", "rerank", "arerank",
    }  # fmt: skip


def test_event_loops_one_after_the_other(
    embed_model: VisualizedBGEEmbedding, reranker: Phi3VisionRerank, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", embed_model)
    store.add(list(embed_model(load_image_nodes(pictures))))
    engine = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever()

    async def ask(path: Path) -> list[str]:
        query = ImageTextQuery("", image_path=str(path))
        hits = await engine.aretrieve(query)
        ranked = await reranker.apostprocess_nodes(hits, query_bundle=query)
        return [hits[0].node.image_path, *(hit.node.node_id for hit in ranked)]

    async def ask_all() -> list[list[str]]:
        return await asyncio.gather(*(ask(path) for path in pictures))

    first = asyncio.run(ask_all())
    assert [answer[0] for answer in first] == [str(path) for path in pictures]
    assert asyncio.run(ask_all()) == first


def embed_in_child(model: VisualizedBGEEmbedding, pictures: list[Path], answer: object) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        vectors = model.get_text_embedding_batch(["a mug"]) + model.get_image_embedding_batch(pictures)
    except ForkedProcessError as error:
        answer.send(str(error))  # type: ignore[attr-defined]
    else:
        answer.send(vectors)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "loaded"), [("fork", True), ("spawn", True), ("forkserver", False)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], method: str, loaded: bool
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    model = (
        embed_model
        if loaded
        else VisualizedBGEEmbedding(**embed_model.model_dump(include={"model_name", "device", "dtype"}))
    )
    expected = embed_model.get_text_embedding_batch(["a mug"]) + embed_model.get_image_embedding_batch(
        pictures
    )
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=embed_in_child, args=(model, pictures, sender), daemon=True)
    child.start()
    sender.close()
    try:
        assert receiver.poll(600), "the child hangs"
        answer = receiver.recv()
    finally:
        child.kill()
        child.join()
    if method == "fork":
        assert "multiprocessing.get_context('spawn')" in answer
        return
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)
