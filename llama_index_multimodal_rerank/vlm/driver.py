"""Carries out the calls of an algorithm, one after the other: in this thread, or beside an event loop."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic

from .calls import ModelCall, ModelCalls, Result, aexecute, execute
from .protocols import VisionLanguageModel


@dataclass(frozen=True)
class _Finished(Generic[Result]):
    """The end of a generator, as a value: StopIteration could not leave a thread."""

    result: Result


def run_calls(model: VisionLanguageModel, calls: ModelCalls[Result]) -> Result:
    """Ask a model what an algorithm wants to know, and return the algorithm's result.

    Raises:
        ModelCallError: a call failed.
    """
    with closing(calls):
        step = _advance(calls, None)
        while not isinstance(step, _Finished):
            step = _advance(calls, execute(model, step))
    return step.result


async def arun_calls(model: VisionLanguageModel, calls: ModelCalls[Result]) -> Result:
    """As :func:`run_calls`; neither the calls nor what lies between them block the event loop."""
    # No closing here: after a cancellation a thread may still be at work in the generator.
    step = await asyncio.to_thread(_advance, calls, None)
    while not isinstance(step, _Finished):
        reply = await aexecute(model, step)
        step = await asyncio.to_thread(_advance, calls, reply)
    return step.result


def _advance(calls: ModelCalls[Result], reply: Any) -> ModelCall[Any] | _Finished[Result]:
    """Go on to the next call, or to the end."""
    try:
        return calls.send(reply)
    except StopIteration as stop:
        return _Finished(stop.value)
