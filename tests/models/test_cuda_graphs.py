"""Which batches are captured, padded, or run plainly; on a GPU, that a graph gives the plain numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.visualized_bge_golden import TINY_BERT, write_folder

from llama_index_multimodal_rerank.models.cuda_graphs import BatchFunction, CapturedBatch, GraphCache
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE

CPU = torch.device("cpu")


class Recorder:
    """Stands in for CUDA: what is captured reads and writes the same memory again at every replay."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.captured: list[int] = []
        self.replayed: list[int] = []
        self.plain: list[int] = []
        self.capturing = False

    def double(self, batch: torch.Tensor) -> torch.Tensor:
        if not self.capturing:
            self.plain.append(len(batch))
        return batch * 2.0

    def __call__(self, function: BatchFunction, batch: torch.Tensor) -> CapturedBatch:
        self.captured.append(len(batch))
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.capturing = True
        inputs = torch.zeros_like(batch)
        outputs = function(inputs)
        self.capturing = False

        def replay() -> None:
            self.replayed.append(len(inputs))
            outputs.copy_(inputs * 2.0)

        return CapturedBatch(inputs, outputs, replay)


def run(graphs: GraphCache, sizes: list[int]) -> None:
    """Run batches of these sizes, none of them with the values of another."""
    for start, size in enumerate(sizes):
        batch = torch.arange(size, dtype=torch.float32)[:, None] + 1000 * start
        assert graphs(batch).tolist() == (batch * 2).tolist()


def test_a_size_is_captured_when_it_comes_again() -> None:
    gpu = Recorder()
    run(GraphCache(gpu.double, CPU, capture=gpu), [8, 8, 8])
    assert (gpu.plain, gpu.captured, gpu.replayed) == ([8], [8], [8, 8])


def test_the_last_batch_is_filled_up_to_a_captured_size_unless_that_doubles_it() -> None:
    gpu = Recorder()
    run(GraphCache(gpu.double, CPU, capture=gpu), [8, 8, 5, 4, 3, 1])
    assert (gpu.captured, gpu.replayed, gpu.plain) == ([8], [8, 8, 8], [8, 3, 1])


def test_results_are_not_written_over_by_the_next_batch() -> None:
    gpu = Recorder()
    graphs = GraphCache(gpu.double, CPU, capture=gpu)
    first, second, third = (graphs(torch.full((2, 1), float(i))) for i in range(3))
    assert [each.tolist() for each in (first, second, third)] == [[[0], [0]], [[2], [2]], [[4], [4]]]


def test_graphs_are_bounded_and_the_least_used_goes() -> None:
    gpu = Recorder()
    graphs = GraphCache(gpu.double, CPU, capture=gpu, most=2)
    run(graphs, [1, 1, 10, 10, 1, 100, 100])  # 10 makes room for 100
    assert graphs.sizes == [1, 100]
    run(graphs, [10])  # seen before: captured at once
    assert (gpu.captured, graphs.sizes) == ([1, 10, 100, 10], [100, 10])


def test_where_capturing_fails_everything_is_run_plainly(caplog: pytest.LogCaptureFixture) -> None:
    gpu = Recorder(fails=True)
    with caplog.at_level(logging.WARNING):
        run(GraphCache(gpu.double, CPU, capture=gpu), [8, 8, 8, 4, 4])
    assert (gpu.captured, gpu.replayed, gpu.plain) == ([8], [], [8, 8, 8, 4, 4])
    assert [record.getMessage() for record in caplog.records] == [
        "No CUDA graph could be captured (operation not permitted when stream is capturing); batches are "
        "launched one by one."
    ]


def test_a_changed_function_is_captured_anew() -> None:
    gpu = Recorder()
    graphs = GraphCache(gpu.double, CPU, capture=gpu)
    run(graphs, [8, 8])
    graphs.clear()
    run(graphs, [8, 8])
    assert gpu.captured == [8, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("graphs") / "model", TINY_BERT)


def pictures(count: int, first: int = 0) -> list[Callable[[], Image.Image]]:
    def draw(seed: int) -> Image.Image:
        rng = np.random.default_rng(seed)
        return Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))

    return [lambda seed=first + i: draw(seed) for i in range(count)]  # type: ignore[misc]


def test_only_pictures_alone_take_the_graphs(folder: Path) -> None:
    """With a stand-in for CUDA around the model itself; vectors are those of the model without it."""
    plain = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
    assert plain._graphs is None  # there are none on a CPU
    bge = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
    captured: list[int] = []

    def capture(function: BatchFunction, batch: torch.Tensor) -> CapturedBatch:
        captured.append(len(batch))
        inputs = batch.clone()
        outputs = function(inputs)
        return CapturedBatch(inputs, outputs, lambda: outputs.copy_(function(inputs)))

    bge._graphs = GraphCache(bge._embed_crops, CPU, capture=capture)
    items = [*pictures(11), *(("a red cat", picture) for picture in pictures(8, 50)), *map(str, range(8))]
    np.testing.assert_allclose(
        bge.encode(items, batch_size=4), plain.encode(items, batch_size=4), rtol=0, atol=1e-5
    )
    assert captured == [4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_graphs_give_the_plain_vectors_on_a_gpu(
    folder: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    bge = VisualizedBGE.from_pretrained(folder, device="cuda", dtype=dtype)
    items = pictures(8 * 3 + 5)
    with caplog.at_level(logging.WARNING):
        found = bge.encode(items, batch_size=8)
    assert not caplog.records
    assert bge._graphs is not None
    assert bge._graphs.sizes == [8]
    bge._graphs = None
    plain = bge.encode(items, batch_size=8)
    np.testing.assert_array_equal(found[:24], plain[:24])  # the same kernels, to the last bit
    assert (found * plain).sum(axis=1).min() >= 0.9999  # the last batch was filled up
