"""``strategy="first_token"`` over a network: a server tells how likely each label is to begin the answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...vlm.calls import Generate, ModelCalls, ScoreAnswers, ask
from ...vlm.protocols import ImagePrompt, RankRequest
from ..answer_drafts import written_reason
from ..prompts import first_label_format, order_reason_prompt
from ..ranking import Audit, BadAnswerError, OnBadAnswer, Ranking, apply_policy
from .base import RankingStrategy, without_reason
from .first_token import ranking_from_logprobs


@dataclass(frozen=True)
class AnsweredFirstToken(RankingStrategy):
    """Sorts labels by their probability to begin the answer; the reason is asked for by itself.

    Attributes:
        max_new_tokens: length of a reason at most, in tokens.
        on_bad_answer: what to do if a server does not tell of all labels. To ask again would give the same,
            so ``"retry"`` repairs.
    """

    max_new_tokens: int
    on_bad_answer: OnBadAnswer

    def answer_format(self) -> str:
        """Return how to answer with a label as the first token."""
        return first_label_format()

    def rank(self, requests: tuple[RankRequest, ...], *, explain: bool) -> ModelCalls[list[Ranking]]:
        """Ask how each answer would begin; labels that a server does not tell of come after the others.

        Raises:
            BadAnswerError: labels are missing, and ``on_bad_answer`` is ``"raise"``.
        """
        scores = yield from ask(ScoreAnswers(requests))
        rankings = [self._ranking(each) for each in scores]
        if not explain or len(requests) > 1 or rankings[0].audit.action == "retrieval_order":
            return rankings
        reason, lost = yield from without_reason(self._reason(requests[0], rankings[0].order))
        return [replace(rankings[0], reason=reason, audit=replace(rankings[0].audit, reason_error=lost))]

    def explain(self, ranking: Ranking, draw: Callable[[], RankRequest]) -> ModelCalls[str | None]:
        """Ask for the reason of an order."""
        return self._reason(draw(), ranking.order)

    def prompts_for_reason(self, sheets: int, *, prefills: bool) -> int:
        """One: a server does not go on from what it has read."""
        return 1

    def _ranking(self, logprobs: list[float]) -> Ranking:
        ranking = ranking_from_logprobs(logprobs)
        answer = getattr(logprobs, "answer", None)
        missing = tuple(label for label, each in enumerate(logprobs, start=1) if each == -math.inf)
        audit = Audit.of_answer(
            "" if answer is None else answer,
            expected=len(logprobs),
            source="first_token",
            listed=len(logprobs) - len(missing),
            missing=missing,
        )
        if audit.clean:
            return replace(ranking, audit=audit)
        if self.on_bad_answer == "raise":
            raise BadAnswerError(audit)
        return apply_policy(ranking, audit, keep_order=self.on_bad_answer == "keep_order")

    def _reason(self, request: RankRequest, order: tuple[int, ...]) -> ModelCalls[str | None]:
        prompt = ImagePrompt(request.images, order_reason_prompt(request.prompt, order))
        (text,) = yield from ask(Generate((prompt,), self.max_new_tokens))
        return written_reason(text)
