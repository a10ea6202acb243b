"""Items of many requests in one batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from llama_index_multimodal_rerank.serving.batcher import Batcher
from llama_index_multimodal_rerank.serving.limits import (
    Admission,
    BodyTooLargeError,
    Limits,
    QueueFullError,
)


class Model:
    """Doubles numbers; negative ones it fails on; holds its first batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def encode(self, items: Sequence[int]) -> np.ndarray:
        self.batches.append([*items])
        assert self.go.wait(60)
        if min(items) < 0:
            raise FloatingPointError("a negative number")
        return np.array([[2 * item] for item in items], dtype=np.float32)


@asynccontextmanager
async def running(model: Model, max_batch: int = 8) -> AsyncIterator[Batcher]:
    batcher = Batcher(model.encode, max_batch)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        model.go.set()
        task.cancel()


async def start(batcher: Batcher, model: Model, first: int, *others: int) -> list[asyncio.Task[np.ndarray]]:
    """Have the model hold the first item, and the others wait."""
    tasks = [asyncio.create_task(batcher.embed(first))]
    while not model.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(batcher.embed(item)) for item in others]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_the_model_is_busy_is_the_next_batch() -> None:
    model = Model()
    async with running(model, max_batch=4) as batcher:
        tasks = await start(batcher, model, 1, 2, 3, 4, 5, 6)
        model.go.set()
        assert [float(vector[0]) for vector in await asyncio.gather(*tasks)] == [2, 4, 6, 8, 10, 12]
    assert model.batches == [[1], [2, 3, 4, 5], [6]]


async def test_an_item_that_fails_does_not_fail_its_neighbours() -> None:
    model = Model()
    async with running(model) as batcher:
        tasks = await start(batcher, model, 1, 2, -3, 4)
        model.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [float(one[0]) for one in (results[0], results[1], results[3])] == [2, 4, 8]
    assert isinstance(results[2], FloatingPointError)
    assert model.batches == [[1], [2, -3, 4], [2], [-3], [4]]


async def test_an_item_that_nobody_waits_for_is_left_out_and_the_others_get_their_own() -> None:
    model = Model()
    async with running(model) as batcher:
        tasks = await start(batcher, model, 1, 2, 3, 4)
        tasks[0].cancel()  # under way
        tasks[2].cancel()  # waiting
        await asyncio.sleep(0)
        model.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [float(one[0]) for one in (results[1], results[3])] == [4, 8]
        assert float((await batcher.embed(5))[0]) == 10
    assert model.batches == [[1], [2, 4], [5]]


def test_requests_and_bytes_are_counted_while_they_are_served() -> None:
    admission = Admission(Limits(max_requests=2, max_body_bytes=10, max_queue_bytes=15))
    with admission.admit(6):
        with pytest.raises(QueueFullError, match="1 requests of 6 bytes"), admission.admit(None):
            pass  # of unknown length: counts as 10
        with admission.admit(1), pytest.raises(QueueFullError, match="2 requests"), admission.admit(1):
            pass
        with (
            pytest.raises(BodyTooLargeError, match="11 bytes, more than the limit of 10"),
            admission.admit(11),
        ):
            pass
    assert (admission.requests, admission.bytes) == (0, 0)


@pytest.mark.parametrize("field", ["max_items", "max_requests", "body_seconds"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be positive, got 0"):
        Limits(**{field: 0})


def test_a_request_that_could_never_be_let_in_is_no_limit() -> None:
    with pytest.raises(ValueError, match="must not be more than max_queue_bytes"):
        Limits(max_body_bytes=20, max_queue_bytes=10)
