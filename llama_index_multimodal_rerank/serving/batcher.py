"""Batcher: items of many requests, embedded together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]


class Batcher:
    """Hands items to a model, as many at a time as have come while it was busy with those before.

    Nothing waits for a batch to fill: an item that finds the model idle is embedded at once, alone. All
    methods belong to one event loop; the model runs in a thread.

    Args:
        encode: from items to vectors, (items, dim).
        max_batch: items of a batch, at most.
    """

    def __init__(self, encode: Callable[[Sequence[Any]], Vectors], max_batch: int) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._waiting: deque[tuple[Any, asyncio.Future[Vectors]]] = deque()
        self._come = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def embed(self, item: Any) -> Vectors:
        """Return the vector of an item, (dim,).

        Raises:
            Exception: what the model raises for this item; not what it raises for those beside it.
        """
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._come.set()
        return await future

    async def run(self) -> None:
        """Embed what comes, until cancelled."""
        try:
            while True:
                await self._come.wait()
                batch = self._next_batch()
                if batch:
                    await self._embed_batch(batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_batch(self) -> list[tuple[Any, asyncio.Future[Vectors]]]:
        batch: list[tuple[Any, asyncio.Future[Vectors]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # cancelled: its request failed, or nobody waits for it
                batch.append((item, future))
        if not self._waiting:
            self._come.clear()
        return batch

    async def _embed_batch(self, batch: list[tuple[Any, asyncio.Future[Vectors]]]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for item, _ in batch]
        try:
            vectors = await loop.run_in_executor(self._thread, self._encode, items)
        except Exception as error:
            if len(batch) > 1:
                # One item's fault must not be that of its neighbours.
                logger.warning("A batch of %d failed (%r) and is embedded one by one", len(batch), error)
                for one in batch:
                    await self._embed_batch([one])
                return
            with suppress(asyncio.InvalidStateError):
                batch[0][1].set_exception(error)
            return
        for (_, future), vector in zip(batch, vectors, strict=True):
            if not future.done():
                future.set_result(vector)
