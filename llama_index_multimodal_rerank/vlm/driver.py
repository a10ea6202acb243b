"""Carries out the calls of an algorithm, one after the other: in this thread, or beside an event loop."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic

from .calls import ModelCall, ModelCallError, ModelCalls, Result, aexecute, execute
from .protocols import VisionLanguageModel


@dataclass(frozen=True)
class _Finished(Generic[Result]):
    """The end of a generator, as a value: StopIteration could not leave a thread."""

    result: Result


def run_calls(model: VisionLanguageModel, calls: ModelCalls[Result]) -> Result:
    """Ask a model what an algorithm wants to know, and return the algorithm's result.

    A call that fails is raised in the algorithm, which may go on without the reply.

    Raises:
        ModelCallError: a call failed, and the algorithm cannot do without it.
    """
    with closing(calls):
        step = _advance(calls, None)
        while not isinstance(step, _Finished):
            try:
                reply: Any = execute(model, step)
            except ModelCallError as error:
                reply = error
            step = _advance(calls, reply)
    return step.result


async def arun_calls(model: VisionLanguageModel, calls: ModelCalls[Result]) -> Result:
    """As :func:`run_calls`; neither the calls nor what lies between them block the event loop."""
    # No closing here: after a cancellation a thread may still be at work in the generator.
    step = await asyncio.to_thread(_advance, calls, None)
    while not isinstance(step, _Finished):
        try:
            reply: Any = await aexecute(model, step)
        except ModelCallError as error:
            reply = error
        step = await asyncio.to_thread(_advance, calls, reply)
    return step.result


def _advance(calls: ModelCalls[Result], reply: Any) -> ModelCall[Any] | _Finished[Result]:
    """Go on to the next call, or to the end, with a reply or the failure of a call."""
    try:
        return calls.throw(reply) if isinstance(reply, ModelCallError) else calls.send(reply)
    except StopIteration as stop:
        return _Finished(stop.value)
