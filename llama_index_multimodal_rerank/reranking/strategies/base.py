"""The face of all strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from ...vlm.calls import ModelCallError, ModelCalls, RankLabels, ask
from ...vlm.protocols import PrefilledRequests, RankRequest
from ..ranking import Ranking


class RankingStrategy(ABC):
    """Ranks the labels of sheets."""

    @abstractmethod
    def rank(self, requests: tuple[RankRequest, ...], *, explain: bool) -> ModelCalls[list[Ranking]]:
        """Rank the labels of each sheet.

        Args:
            requests: sheets of equally many candidates, in one batch. The orders of several will be counted
                together, and :meth:`explain` is asked for the reason after that.
            explain: say why the first is first.
        """

    def answer_format(self) -> str | None:
        """Return how answers must be asked for, or None if any form will do that the model can be held to."""
        return None

    def explain(self, ranking: Ranking, draw: Callable[[], RankRequest]) -> ModelCalls[str | None]:
        """Say why the first is first in an order that was counted together: as an answer did that agrees.

        Args:
            ranking: the order, with the reason of such an answer.
            draw: makes a sheet on which label i is the candidate i of ``ranking``.

        Raises:
            ModelCallError: the model gave no answer.
        """
        yield from ()  # no model is asked
        return ranking.reason

    def prompts_for_reason(self, sheets: int, *, prefills: bool) -> int:
        """Return how many prompts a reason takes, besides one for each sheet.

        Args:
            sheets: how many sheets of a window are ranked.
            prefills: whether the model can go on from what it has read.
        """
        return 0


def without_reason(asking: ModelCalls[str | None]) -> ModelCalls[tuple[str | None, str | None]]:
    """Return a reason, and None; or None, and why there is none: a ranking stands without its reason."""
    try:
        return (yield from asking), None
    except ModelCallError as error:
        return None, str(error)


def write_reason(
    request: RankRequest,
    order: tuple[int, ...],
    *,
    max_new_tokens: int,
    prefilled: PrefilledRequests | None = None,
) -> ModelCalls[str | None]:
    """Have a constrained model write an order that is known, and go on to the reason for it."""
    (written,) = yield from ask(RankLabels((request,), max_new_tokens, order, prefilled))
    return written.text or None
