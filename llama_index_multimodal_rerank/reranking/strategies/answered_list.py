"""``strategy="listwise"`` for models that answer in text: what they list is read, audited, and repaired."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...vlm.calls import Generate, ModelCalls, ask
from ...vlm.protocols import RankRequest
from ..prompts import ranking_schema
from ..ranking import Audit, BadAnswerError, OnBadAnswer, Ranking, ranking_from_answer
from .base import RankingStrategy

MAX_RETRIES = 2
"""How often ``on_bad_answer="retry"`` asks again before it repairs."""


@dataclass(frozen=True)
class AnsweredList(RankingStrategy):
    """Has the list written freely.

    Attributes:
        max_new_tokens: length of a reason at most, in tokens.
        on_bad_answer: what to do with answers that are no complete rankings.
    """

    max_new_tokens: int
    on_bad_answer: OnBadAnswer

    def rank(self, requests: tuple[RankRequest, ...], *, explain: bool) -> ModelCalls[list[Ranking]]:
        """Ask until every answer is a ranking, or is made one; reasons are read from the answers.

        Raises:
            BadAnswerError: an answer is not complete, and ``on_bad_answer`` is ``"raise"``.
        """
        n = requests[0].num_labels
        # Half a dozen tokens per entry hold it in any of the usual forms.
        tokens = 6 * n + 32 + self.max_new_tokens
        schema = ranking_schema(n, explain=explain)
        rankings: dict[int, Ranking] = {}
        open_requests = dict(enumerate(requests))
        attempts = 1 + (MAX_RETRIES if self.on_bad_answer == "retry" else 0)
        for attempt in range(1, attempts + 1):
            answers = yield from ask(Generate(tuple(open_requests.values()), tokens, schema))
            policy: OnBadAnswer = self.on_bad_answer
            if policy == "retry" and attempt == attempts:
                policy = "repair"
            for number, text in zip(list(open_requests), answers, strict=True):
                try:
                    ranking = ranking_from_answer(text, n, on_bad_answer=policy)
                except BadAnswerError as error:
                    if policy == "raise":
                        raise
                    open_requests[number] = _again(requests[number], error.audit)
                    continue
                audit = replace(ranking.audit, attempts=attempt)
                rankings[number] = replace(ranking, audit=audit)
                del open_requests[number]
            if not open_requests:
                break
        return [rankings[number] for number in range(len(requests))]


def _again(request: RankRequest, audit: Audit) -> RankRequest:
    return replace(
        request,
        prompt=f"{request.prompt}\nYour last answer was not a complete ranking: {audit.describe()}. Name "
        f"each of the numbers 1 to {request.num_labels} exactly once.",
    )
