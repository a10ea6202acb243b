"""Carries out the calls of many algorithms at once: what they ask alike is one batch of the model."""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .calls import (
    MAX_PARALLEL_CALLS,
    ModelCall,
    ModelCallError,
    ModelCalls,
    RankLabels,
    Result,
    ScoreLabels,
    execute,
)
from .driver import arun_calls, run_calls
from .protocols import AsyncModel, VisionLanguageModel


def run_batch(
    model: VisionLanguageModel,
    algorithms: Sequence[ModelCalls[Result]],
    done: Callable[[int], object],
    *,
    side_by_side: int = MAX_PARALLEL_CALLS,
) -> list[Result | Exception]:
    """Run algorithms side by side; one that fails does not touch the others.

    A model of a network is asked by threads. Of another, sheets of equally many labels share a batch.

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
            for number in range(len(self._algorithms)):
                self._advance(number, None)
            while self._waiting:
                # The first that waits, with all that ask the same way.
                key = _key(next(iter(self._waiting.values())))
                alike = {number: call for number, call in self._waiting.items() if _key(call) == key}
                for number in alike:
                    del self._waiting[number]
                replies = self._ask(alike)
                for number, call in alike.items():
                    self._advance(number, replies[number] if number in replies else self._one(call))
        finally:
            for calls in self._algorithms:
                calls.close()
        return [self._outcomes[number] for number in range(len(self._algorithms))]

    def _advance(self, number: int, reply: Any) -> None:
        """Go on up to a call that others can share; what cannot be shared is asked at once.

        So what a model has read for one algorithm is used before it reads for the next.
        """
        calls = self._algorithms[number]
        try:
            while True:
                call = calls.throw(reply) if isinstance(reply, Exception) else calls.send(reply)
                if _key(call) is not None:
                    self._waiting[number] = call
                    return
                reply = self._one(call)
        except StopIteration as stop:
            self._outcomes[number] = stop.value
        except Exception as error:
            self._outcomes[number] = error
        self._done(number)

    def _one(self, call: ModelCall[Any]) -> Any:
        try:
            return execute(self._model, call)
        except ModelCallError as error:
            return error

    def _ask(self, alike: dict[int, ModelCall[Any]]) -> dict[int, Any]:
        """Ask in one batch; nothing is returned if that failed, or if there is nothing to share."""
        if len(alike) < 2:
            return {}
        calls = list(alike.values())
        requests = tuple(request for call in calls for request in call.requests)  # type: ignore[attr-defined]
        try:
            replies = execute(self._model, replace(calls[0], requests=requests))  # type: ignore[type-var]
        except ModelCallError:  # each for itself, to see whose fault it is
            return {}
        parts, start = {}, 0
        for number, call in alike.items():
            end = start + len(call.requests)  # type: ignore[attr-defined]
            parts[number] = replies[start:end]
            start = end
        return parts


def _key(call: ModelCall[Any]) -> tuple[Any, ...] | None:
    """Say with which others a call can share a batch; None with none."""
    if isinstance(call, ScoreLabels):
        return ScoreLabels, call.requests[0].num_labels
    if isinstance(call, RankLabels) and call.prefilled is None and call.order is None:
        return RankLabels, call.requests[0].num_labels, call.max_new_tokens
    return None
