"""``strategy="listwise"`` for models that can be made to write complete rankings only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...vlm.calls import ModelCalls, RankLabels, ask
from ...vlm.protocols import RankRequest
from ..ranking import Audit, Ranking, cumulative_scores
from .base import RankingStrategy, write_reason


@dataclass(frozen=True)
class ConstrainedList(RankingStrategy):
    """Has the whole list decoded under the permutation constraint.

    Attributes:
        max_new_tokens: length of a reason at most, in tokens.
    """

    max_new_tokens: int

    def rank(self, requests: tuple[RankRequest, ...], *, explain: bool) -> ModelCalls[list[Ranking]]:
        """Have lists written; on the list of one sheet the reason for it follows."""
        n = requests[0].num_labels
        audit = Audit(expected=n, source="constraint", listed=n)
        written = yield from ask(
            RankLabels(requests, self.max_new_tokens if explain and len(requests) == 1 else 0)
        )
        return [
            Ranking(each.order, cumulative_scores(each.probabilities), each.text or None, audit)
            for each in written
        ]

    def explain(self, ranking: Ranking, draw: Callable[[], RankRequest]) -> ModelCalls[str | None]:
        """Have the order written, and the reason after it."""
        return write_reason(draw(), ranking.order, max_new_tokens=self.max_new_tokens)

    def prompts_for_reason(self, sheets: int, *, prefills: bool) -> int:
        """It follows the list of one sheet; the order of several is written anew."""
        return int(sheets > 1)
