"""The handle on requests that the local model has read, to go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .protocols import LabelRanking

if TYPE_CHECKING:
    from .decoding import PrefilledPrompt


class _Rank(Protocol):
    def __call__(
        self,
        handle: PrefilledPhi3Requests,
        /,
        *,
        max_new_tokens: int,
        orders: Sequence[Sequence[int] | None],
    ) -> list[LabelRanking]: ...


class PrefilledPhi3Requests:
    """Requests that the local model has read; see ``PrefilledRequests``.

    Keys and values take a gigabyte a sheet. So they are given to the first ranking, and are freed before the
    model reads anything else, whoever still holds the handle. A later ranking reads the requests again.

    Args:
        label_logprobs: for each request, the log-probability of each label to be written first.
        prefilled: what was read.
        rank: ranks the requests, with what this handle still has.
    """

    def __init__(self, label_logprobs: list[list[float]], prefilled: PrefilledPrompt, rank: _Rank) -> None:
        self.label_logprobs = label_logprobs
        self._prefilled: PrefilledPrompt | None = prefilled
        self._rank = rank

    def rank_labels(self, *, max_new_tokens: int, order: Sequence[int] | None = None) -> list[LabelRanking]:
        """Write complete rankings of the requests; see ``ConstrainedModel``."""
        return self.rank_each([order] * len(self.label_logprobs), max_new_tokens=max_new_tokens)

    def rank_each(self, orders: Sequence[Sequence[int] | None], *, max_new_tokens: int) -> list[LabelRanking]:
        """Write rankings, each in an order of its own; see ``BatchPrefillingModel``."""
        return self._rank(self, max_new_tokens=max_new_tokens, orders=orders)

    def take(self) -> PrefilledPrompt | None:
        """Return what was read, and keep it no longer; None if it was taken or freed before."""
        prefilled, self._prefilled = self._prefilled, None
        return prefilled
