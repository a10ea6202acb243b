"""``strategy="first_token"``: one forward pass, and the order is that of the labels' probabilities.

Source: "FIRST: Faster Improved Listwise Reranking with Single Token Decoding", arXiv:2406.15657.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...vlm.calls import ModelCalls, Prefill, ScoreLabels, ask
from ...vlm.protocols import RankRequest
from ..ranking import Audit, Ranking
from .base import RankingStrategy, write_reason


@dataclass(frozen=True)
class FirstToken(RankingStrategy):
    """Sorts labels by their probability to be written first.

    Attributes:
        max_new_tokens: length of a reason at most, in tokens.
        writes_reasons: whether the model can be made to write an order that is known, and its reason.
    """

    max_new_tokens: int
    writes_reasons: bool

    def rank(self, requests: tuple[RankRequest, ...], *, explain: bool) -> ModelCalls[list[Ranking]]:
        """Read label probabilities; the reason for the order of one sheet follows from the same prefill."""
        if not (explain and self.writes_reasons and len(requests) == 1):
            scores = yield from ask(ScoreLabels(requests))
            return [ranking_from_logprobs(each) for each in scores]
        prefill = yield from ask(Prefill(requests))
        ranking = ranking_from_logprobs(prefill.logprobs[0])
        reason = yield from write_reason(
            requests[0], ranking.order, max_new_tokens=self.max_new_tokens, prefilled=prefill.prefilled
        )
        return [replace(ranking, reason=reason)]

    def explain(self, ranking: Ranking, draw: Callable[[], RankRequest]) -> ModelCalls[str | None]:
        """Have the order written, and the reason after it, if the model can."""
        if not self.writes_reasons:
            return None
        return (yield from write_reason(draw(), ranking.order, max_new_tokens=self.max_new_tokens))

    def prompts_for_reason(self, sheets: int, *, prefills: bool) -> int:
        """One, unless it goes on from the one sheet that was read."""
        return int(self.writes_reasons and (sheets > 1 or not prefills))


def ranking_from_logprobs(logprobs: Sequence[float]) -> Ranking:
    """Sort labels by their log-probabilities, from 0; of equals the first is the better."""
    probabilities = _softmax(logprobs)
    order = sorted(range(len(logprobs)), key=lambda label: (-logprobs[label], label))
    audit = Audit(expected=len(order), source="first_token", listed=len(order))
    return Ranking(tuple(order), tuple(probabilities[label] for label in order), None, audit)


def _softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    if highest == -math.inf:
        return [1 / len(logits)] * len(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
