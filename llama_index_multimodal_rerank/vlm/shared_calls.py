"""Calls of several queries as one: which go together, and which part of the reply is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..images.sources import pixels_digest
from .calls import (
    Generate,
    ModelCall,
    ModelCallError,
    Prefill,
    PrefilledScores,
    RankLabels,
    RankPrefilled,
    ScoreLabels,
    execute,
)
from .protocols import (
    BatchGeneratingModel,
    BatchPrefillingModel,
    ConstrainedModel,
    ImagePrompt,
    LabelRanking,
    PrefilledRequests,
    RankRequest,
    VisionLanguageModel,
)


@dataclass(frozen=True)
class _Part:
    """A query's share of what was read for several; see ``PrefilledRequests``.

    Attributes:
        model: who has read it.
        requests: all sheets that were read.
        own: which of them are the query's.
        prefilled: what was read.
        label_logprobs: of the query's sheets.
    """

    model: ConstrainedModel
    requests: tuple[RankRequest, ...]
    own: range
    prefilled: PrefilledRequests
    label_logprobs: list[list[float]]

    def rank_labels(self, *, max_new_tokens: int, order: Sequence[int] | None = None) -> list[LabelRanking]:
        """Rank the query's sheets by themselves: they are read again."""
        requests = self.requests[self.own.start : self.own.stop]
        return self.model.rank_labels(requests, max_new_tokens=max_new_tokens, order=order)


def part_of(call: ModelCall[Any]) -> _Part | None:
    """Return the part of a shared reading that a call goes on from, if it does."""
    prefilled = call.prefilled if isinstance(call, RankLabels) else None
    return prefilled if isinstance(prefilled, _Part) else None


def share_key(model: VisionLanguageModel, call: ModelCall[Any]) -> tuple[Any, ...] | None:
    """Say with which others a call can share a batch: those with an equal key; None with none."""
    if isinstance(call, ScoreLabels):
        return ScoreLabels, call.requests[0].num_labels
    if isinstance(call, Generate) and isinstance(model, BatchGeneratingModel):
        return Generate, call.max_new_tokens
    if isinstance(call, Prefill) and isinstance(model, BatchPrefillingModel):
        return Prefill, call.requests[0].num_labels
    if isinstance(call, RankLabels):
        part = part_of(call)
        if part is not None and call.order is not None:
            return RankPrefilled, id(part.prefilled), call.max_new_tokens
        if call.prefilled is None and call.order is None:
            return RankLabels, call.requests[0].num_labels, call.max_new_tokens
    return None


def ask_together(model: VisionLanguageModel, calls: Sequence[ModelCall[Any]]) -> list[Any] | None:
    """Ask calls with equal keys in one batch.

    Args:
        model: who is asked.
        calls: what is asked, once or more.

    Returns:
        The reply to each; None if there was none for all, or nothing to share.
    """
    first = calls[0]
    try:
        part = part_of(first)
        if part is not None:
            return _go_on(model, part, [call for call in calls if isinstance(call, RankLabels)])
        if len(calls) < 2:
            return None
        if isinstance(first, Generate):
            return _generate(model, first, [call for call in calls if isinstance(call, Generate)])
        requests: list[RankRequest] = [each for call in calls for each in call.requests]  # type: ignore[attr-defined]
        replies = execute(model, replace(first, requests=tuple(requests)))  # type: ignore[type-var]
    except ModelCallError:
        return None
    shares, start = [], 0
    for call in calls:
        own = range(start, start + len(call.requests))  # type: ignore[attr-defined]
        shares.append(own)
        start = own.stop
    if not isinstance(replies, PrefilledScores):
        return [replies[own.start : own.stop] for own in shares]
    return [_share(model, tuple(requests), own, replies) for own in shares]


def _share(
    model: VisionLanguageModel, requests: tuple[RankRequest, ...], own: range, scores: PrefilledScores
) -> PrefilledScores:
    logprobs = scores.logprobs[own.start : own.stop]
    if scores.prefilled is None or not isinstance(model, ConstrainedModel):
        return PrefilledScores(logprobs, None)
    return PrefilledScores(logprobs, _Part(model, requests, own, scores.prefilled, logprobs))


def _go_on(model: VisionLanguageModel, part: _Part, calls: Sequence[RankLabels]) -> list[Any]:
    """Have several queries' orders written, and their reasons, from one reading."""
    asked = [(part_of(call), call.order) for call in calls]
    # A query that failed meanwhile is written with the others; nobody looks at it.
    orders = {row: tuple(range(request.num_labels)) for row, request in enumerate(part.requests)}
    orders |= {row: order for own, order in asked if own and order for row in own.own}
    call = RankPrefilled(part.requests, part.prefilled, tuple(orders.values()), calls[0].max_new_tokens)
    replies = execute(model, call)
    return [[replies[row] for row in own.own] for own, _ in asked if own]


def _generate(model: VisionLanguageModel, first: Generate, calls: Sequence[Generate]) -> list[Any]:
    """Have each different prompt answered once: queries may share a picture."""
    keys = [[_content(prompt) for prompt in call.prompts] for call in calls]
    prompts = {
        key: prompt
        for call, own in zip(calls, keys, strict=True)
        for key, prompt in zip(own, call.prompts, strict=True)
    }
    together: ModelCall[list[str]] = replace(first, prompts=tuple(prompts.values()))
    replies: list[str] = execute(model, together)
    answers = dict(zip(prompts, replies, strict=True))
    return [[answers[key] for key in own] for own in keys]


def _content(prompt: ImagePrompt) -> tuple[str, tuple[str, ...]]:
    return prompt.prompt, tuple(map(pixels_digest, prompt.images))
