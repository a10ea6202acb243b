"""Several prompts of one call: one after the other, or several at once where a network is waited for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .protocols import AsyncModel, ImagePrompt, VisionLanguageModel

Prompt = TypeVar("Prompt", bound=ImagePrompt)

MAX_PARALLEL_CALLS = 8
"""Calls of a remote model under way at once, for one query."""


def side_by_side(
    model: VisionLanguageModel, one: Callable[[Prompt], Any], prompts: Sequence[Prompt]
) -> list[Any]:
    """Ask one prompt after the other; a remote model several at once."""
    if len(prompts) == 1 or not isinstance(model, AsyncModel):
        return [one(prompt) for prompt in prompts]
    with ThreadPoolExecutor(MAX_PARALLEL_CALLS, thread_name_prefix="vlm") as pool:
        futures = [pool.submit(contextvars.copy_context().run, one, each) for each in prompts]
        return [future.result() for future in futures]


async def aside_by_side(one: Callable[[Prompt], Awaitable[Any]], prompts: Sequence[Prompt]) -> list[Any]:
    """As :func:`side_by_side`, by the model's coroutines."""
    gate = asyncio.Semaphore(MAX_PARALLEL_CALLS)

    async def gated(prompt: Prompt) -> Any:
        async with gate:
            return await one(prompt)

    return list(await asyncio.gather(*map(gated, prompts)))
