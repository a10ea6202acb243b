"""Carries out the calls of many algorithms at once: what they ask alike is one batch of the model."""

from __future__ import annotations

import asyncio
import contextvars
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .calls import ModelCall, ModelCallError, ModelCalls, Result, execute
from .driver import arun_calls, run_calls
from .protocols import AsyncModel, BatchGeneratingModel, VisionLanguageModel
from .shared_calls import ask_together, part_of, share_key
from .side_by_side import MAX_PARALLEL_CALLS

SIDE_BY_SIDE = min(8, os.cpu_count() or 1)
"""Queries whose pictures are read and whose sheets are drawn at once."""


def run_batch(
    model: VisionLanguageModel,
    algorithms: Sequence[ModelCalls[Result]],
    done: Callable[[int], object],
    *,
    side_by_side: int = MAX_PARALLEL_CALLS,
) -> list[Result | Exception]:
    """Run algorithms side by side; one that fails does not touch the others.

    A model of a network is asked by threads. Of another, what is asked alike shares a batch: captions, and
    sheets of equally many labels with their lists and reasons.

    Args:
        model: who is asked.
        algorithms: what asks.
        done: called with the index of one of them whenever it has ended.
        side_by_side: how many are under way at once, of a model of a network.

    Returns:
        In the order of the algorithms, the result of each, or the exception that it ended with.
    """
    if isinstance(model, AsyncModel):

        def one(number: int) -> Result | Exception:
            try:
                return run_calls(model, algorithms[number])
            except Exception as error:
                return _without_frames(error)
            finally:
                done(number)

        with ThreadPoolExecutor(side_by_side, thread_name_prefix="rerank") as pool:
            numbers = range(len(algorithms))
            futures = [pool.submit(contextvars.copy_context().run, one, number) for number in numbers]
            return [future.result() for future in futures]
    return _Batch(model, algorithms, done).run()


async def arun_batch(
    model: VisionLanguageModel,
    algorithms: Sequence[ModelCalls[Result]],
    done: Callable[[int], object],
    *,
    side_by_side: int = MAX_PARALLEL_CALLS,
) -> list[Result | Exception]:
    """As :func:`run_batch`, without blocking the event loop."""
    if not isinstance(model, AsyncModel):
        return await asyncio.to_thread(run_batch, model, algorithms, done)
    gate = asyncio.Semaphore(side_by_side)

    async def one(number: int) -> Result | Exception:
        async with gate:
            try:
                return await arun_calls(model, algorithms[number])
            except Exception as error:
                return _without_frames(error)
            finally:
                done(number)

    return list(await asyncio.gather(*map(one, range(len(algorithms)))))


def _without_frames(error: Exception) -> Exception:
    """Return an exception that keeps its lines, but none of the pictures that were at hand there."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__
    return error


class _Batch:
    """Algorithms of a model that is asked by one thread."""

    def __init__(
        self, model: VisionLanguageModel, algorithms: Sequence[ModelCalls[Any]], done: Callable[[int], object]
    ) -> None:
        self._model, self._algorithms, self._done = model, algorithms, done
        self._outcomes: dict[int, Any] = {}
        self._waiting: dict[int, ModelCall[Any]] = {}

    def run(self) -> list[Any]:
        """Return results and exceptions."""
        try:
            self._advance(dict.fromkeys(range(len(self._algorithms))))
            while self._waiting:
                # What goes on from what the model has read comes first: other calls would free that.
                first = min(self._waiting.values(), key=lambda call: part_of(call) is None)
                key = share_key(self._model, first)
                alike = {
                    number: call
                    for number, call in self._waiting.items()
                    if share_key(self._model, call) == key
                }
                for number in alike:
                    del self._waiting[number]
                replies = ask_together(self._model, list(alike.values()))
                if replies is None:  # each for itself, to see whose fault it is
                    for number, call in alike.items():
                        self._advance({number: self._one(call)})
                else:
                    self._advance(dict(zip(alike, replies, strict=True)))
        finally:
            for calls in self._algorithms:
                calls.close()
        return [self._outcomes[number] for number in range(len(self._algorithms))]

    def _advance(self, replies: dict[int, Any]) -> None:
        """Go on, by number, up to calls that others can share; what cannot be shared is asked at once.

        So what a model has read for one algorithm is used before it reads for the next. Where even captions
        are shared, pictures are read and sheets are drawn side by side.
        """
        following: Iterable[ModelCall[Any] | None]
        if len(replies) > 1 and isinstance(self._model, BatchGeneratingModel):
            with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="queries") as pool:
                futures = [
                    pool.submit(contextvars.copy_context().run, self._send, number, reply)
                    for number, reply in replies.items()
                ]
                following = [future.result() for future in futures]
        else:
            following = (self._send(number, reply) for number, reply in replies.items())
        for number, next_call in zip(replies, following, strict=True):
            call = next_call
            while call is not None and share_key(self._model, call) is None:
                call = self._send(number, self._one(call))
            if call is None:
                self._done(number)
            else:
                self._waiting[number] = call

    def _send(self, number: int, reply: Any) -> ModelCall[Any] | None:
        """Send a reply, or raise it, and return the next call; None at the end."""
        calls = self._algorithms[number]
        try:
            return calls.throw(reply) if isinstance(reply, Exception) else calls.send(reply)
        except StopIteration as stop:
            self._outcomes[number] = stop.value
        except Exception as error:
            self._outcomes[number] = error
        return None

    def _one(self, call: ModelCall[Any]) -> Any:
        try:
            return execute(self._model, call)
        except ModelCallError as error:
            return error
