"""Permutation self-consistency: a window on several sheets, each shuffled, and one order of all their orders.

Source: "Found in the Middle: Permutation Self-Consistency Improves Listwise Ranking in Large Language
Models", arXiv:2310.07712.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from .aggregation import borda_count, kendall_w
from .ranking import Ranking
from .reason_labels import relabel


def shuffled(n: int, permutations: int, seed: int) -> list[list[int]]:
    """Return, for each sheet, which candidate has which label; as they are if there is one sheet only."""
    if permutations == 1:
        return [list(range(n))]
    generator = random.Random(seed)  # noqa: S311 (no secret)
    return [generator.sample(range(n), n) for _ in range(permutations)]


def consensus(shuffles: Sequence[Sequence[int]], rankings: Sequence[Ranking]) -> Ranking:
    """Turn rankings of labels into one ranking of candidates.

    Args:
        shuffles: for each ranking, which candidate has which label.
        rankings: one per sheet. The reason of one that has the same first candidate is kept; it then calls
            candidates by their places in the window, from 1, as if they had not been shuffled.
    """
    orders = [
        tuple(shuffle[label] for label in ranking.order)
        for shuffle, ranking in zip(shuffles, rankings, strict=True)
    ]
    if len(orders) == 1:
        return replace(rankings[0], order=orders[0])
    order, scores = borda_count(orders)
    reasons = (
        each.reason
        and relabel(each.reason, {i: f"[{place + 1}]" for i, place in enumerate(shuffle, start=1)})
        for own, shuffle, each in zip(orders, shuffles, rankings, strict=True)
        if own[0] == order[0]
    )
    reason = next((reason for reason in reasons if reason), None)
    return Ranking(order, scores, reason, rankings[0].audit, confidence=kendall_w(orders))
