"""Calls of a model, as values: the reranking algorithm makes them, a driver carries them out.

So the algorithm exists once, for synchronous and asynchronous callers.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .errors import ModelCallError as ModelCallError
from .protocols import (
    AsyncModel,
    ConstrainedModel,
    JsonModel,
    LabelRanking,
    LabelScoringModel,
    RankRequest,
    VisionLanguageModel,
)
from .replies import ReplyError, check_count, check_logprobs, check_ranking, check_text

MAX_PARALLEL_CALLS = 8
"""Calls of a remote model under way at once, for one query."""


@dataclass(frozen=True)
class Generate:
    """Free answers, one string per request.

    Attributes:
        requests: what to ask.
        max_new_tokens: length of each answer at most, in tokens.
        schema: JSON schema of the answers, for a :class:`JsonModel`.
    """

    requests: tuple[RankRequest, ...]
    max_new_tokens: int
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ScoreLabels:
    """Label logits, one list of floats per request."""

    requests: tuple[RankRequest, ...]


@dataclass(frozen=True)
class RankLabels:
    """Rankings under the constraint, one :class:`LabelRanking` per request; see :class:`ConstrainedModel`."""

    requests: tuple[RankRequest, ...]
    max_new_tokens: int
    order: tuple[int, ...] | None = None


ModelCall = Generate | ScoreLabels | RankLabels
ModelReply = list[str] | list[list[float]] | list[LabelRanking]


def execute(model: VisionLanguageModel, call: ModelCall) -> ModelReply:
    """Carry a call out.

    Raises:
        ModelCallError: the model raised, or its reply does not fit the request.
    """
    try:
        reply = _execute(model, call)
    except ModelCallError:
        raise
    except Exception as error:
        raise ModelCallError.from_cause(model.model_name, error) from error
    return _checked(model, call, reply)


async def aexecute(model: VisionLanguageModel, call: ModelCall) -> ModelReply:
    """Carry a call out without blocking the event loop.

    Raises:
        ModelCallError: the model raised, or its reply does not fit the request.
    """
    if not (isinstance(call, Generate) and isinstance(model, AsyncModel)):
        return await asyncio.to_thread(execute, model, call)
    gate = asyncio.Semaphore(MAX_PARALLEL_CALLS)

    async def one(request: RankRequest) -> str:
        async with gate:
            if call.schema is not None and isinstance(model, JsonModel):
                return await model.agenerate_json(request.images, request.prompt, schema=call.schema)
            return await model.agenerate(request.images, request.prompt, max_new_tokens=call.max_new_tokens)

    try:
        reply = list(await asyncio.gather(*map(one, call.requests)))
    except ModelCallError:
        raise
    except Exception as error:
        raise ModelCallError.from_cause(model.model_name, error) from error
    return _checked(model, call, reply)


def _execute(model: VisionLanguageModel, call: ModelCall) -> ModelReply:
    if isinstance(call, ScoreLabels):
        assert isinstance(model, LabelScoringModel)  # noqa: S101 (for the type checker)
        return model.label_logprobs(call.requests)
    if isinstance(call, RankLabels):
        assert isinstance(model, ConstrainedModel)  # noqa: S101 (for the type checker)
        return model.rank_labels(call.requests, max_new_tokens=call.max_new_tokens, order=call.order)

    def one(request: RankRequest) -> str:
        if call.schema is not None and isinstance(model, JsonModel):
            return model.generate_json(request.images, request.prompt, schema=call.schema)
        return model.generate(request.images, request.prompt, max_new_tokens=call.max_new_tokens)

    if len(call.requests) == 1 or not isinstance(model, AsyncModel):
        return [one(request) for request in call.requests]
    with ThreadPoolExecutor(MAX_PARALLEL_CALLS, thread_name_prefix="vlm") as pool:
        futures = [pool.submit(contextvars.copy_context().run, one, each) for each in call.requests]
        return [future.result() for future in futures]


def _checked(model: VisionLanguageModel, call: ModelCall, reply: Any) -> ModelReply:
    try:
        replies = check_count(reply, call.requests)
        if isinstance(call, Generate):
            return [check_text(each) for each in replies]
        pairs = list(zip(replies, call.requests, strict=True))
        if isinstance(call, ScoreLabels):
            return [check_logprobs(each, request) for each, request in pairs]
        return [check_ranking(each, request, call.order) for each, request in pairs]
    except ReplyError as error:
        raise ModelCallError(f"{model.model_name} {error}") from error
