"""The bar of an embedding counts what the model has embedded, not what LlamaIndex has handed to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import tqdm.auto
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.storage.kvstore import SimpleKVStore
from support.drawing import draw_picture

from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding, load_image_nodes
from llama_index_multimodal_rerank.schema.nodes import ImageTextNode

COUNT = 20

Counts = list[list[int]]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """What every bar that is shown counted up to, step by step; the model takes eight pictures at a time."""
    seen: Counts = []

    class Recorded(tqdm.auto.tqdm):  # type: ignore[type-arg, misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.steps: list[int] = []
            if self.desc.startswith("Embedding"):
                assert self.total == COUNT
                seen.append(self.steps)

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            self.steps.append(self.n)
            return shown

    monkeypatch.setattr(tqdm.auto, "tqdm", Recorded)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return seen


@pytest.fixture
def nodes(tmp_path: Path) -> list[ImageTextNode]:
    for number in range(COUNT):
        draw_picture(number).save(tmp_path / f"{number:02}.png")
    return load_image_nodes(tmp_path)


@pytest.fixture
def make_model(tiny_checkpoint: Path) -> Callable[..., VisualizedBGEEmbedding]:
    return lambda **options: VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", **options)


def test_a_pipeline_shows_every_batch_of_the_model(
    nodes: list[ImageTextNode], make_model: Callable[..., VisualizedBGEEmbedding], counts: Counts
) -> None:
    IngestionPipeline(transformations=[make_model(show_progress_bar=True)]).run(nodes=nodes)
    assert counts == [[8, 16, 20, 20]]  # the last by the end of the list


def test_an_index_does(
    nodes: list[ImageTextNode], make_model: Callable[..., VisualizedBGEEmbedding], counts: Counts
) -> None:
    VectorStoreIndex(nodes, embed_model=make_model(), show_progress=True)
    assert counts == [[8, 16, 20, 20]]


async def test_an_asynchronous_pipeline_does(
    nodes: list[ImageTextNode], make_model: Callable[..., VisualizedBGEEmbedding], counts: Counts
) -> None:
    await IngestionPipeline(transformations=[make_model(show_progress_bar=True)]).arun(nodes=nodes)
    assert counts == [[8, 16, 20, 20]]


def test_slices_of_llama_index_are_one_bar(
    nodes: list[ImageTextNode], make_model: Callable[..., VisualizedBGEEmbedding], counts: Counts
) -> None:
    IngestionPipeline(transformations=[make_model(embed_batch_size=6, show_progress_bar=True)]).run(
        nodes=nodes
    )
    assert counts == [[6, 12, 18, 20, 20]]


def test_what_is_embedded_again_or_left_out_is_counted_once(
    nodes: list[ImageTextNode], make_model: Callable[..., VisualizedBGEEmbedding], counts: Counts
) -> None:
    Path(nodes[0].image_path).write_bytes(b"no picture any more")
    model = make_model(on_error="skip", embed_batch_size=12, show_progress_bar=True)
    assert len(model(nodes)) == COUNT - 1
    (steps,) = counts
    assert max(steps) == steps[-1] == COUNT


def test_vectors_from_a_cache_are_counted(
    nodes: list[ImageTextNode], make_model: Callable[..., VisualizedBGEEmbedding], counts: Counts
) -> None:
    model = make_model(embeddings_cache=SimpleKVStore())
    texts = [ImageText("", node.image_path) for node in nodes]
    model.get_text_embedding_batch(list(texts))
    model.get_text_embedding_batch(list(texts), show_progress=True)
    assert counts == [[20]]


def test_no_bar_without_being_asked(
    nodes: list[ImageTextNode],
    make_model: Callable[..., VisualizedBGEEmbedding],
    counts: Counts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    IngestionPipeline(transformations=[make_model()]).run(nodes=nodes)
    VectorStoreIndex(nodes, embed_model=make_model())
    assert counts == []
    assert "it/s" not in capsys.readouterr().err
