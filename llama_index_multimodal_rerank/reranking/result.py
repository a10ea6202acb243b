"""What comes of a query: an order with scores, also where nothing was ranked or could be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .candidates import Candidates
from .ranking import Audit, retrieval_order


@dataclass(frozen=True)
class RerankResult:
    """What came of a query.

    Attributes:
        order: candidate indices, best first; all of them.
        scores: score of each place of ``order``, never rising.
        reason: why the first is first, or None. It calls candidates by the labels of ``reason_labelled``.
        caption: caption of the query picture, or None.
        audits: one per answer, in the order asked.
        confidence: agreement of permutations in the last window, or None.
        query_shortened: whether the query's text was cut for the prompt.
        labelled: candidate indices, that of label 1 first, in the last window.
        reason_labelled: as ``labelled``, on the sheet that the reason is about.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    reason: str | None
    caption: str | None
    audits: tuple[Audit, ...]
    confidence: float | None
    query_shortened: bool = False
    labelled: tuple[int, ...] = ()
    reason_labelled: tuple[int, ...] = ()


def without_model(candidates: Candidates, *, error: str | None = None, attempts: int = 0) -> RerankResult:
    """Return the retrieval order, with its scores, where nothing was ranked.

    Args:
        candidates: in retrieval order.
        error: why, if a ranking was wanted.
        attempts: how often a model was asked for one.
    """
    kept = retrieval_order(len(candidates), error=error, attempts=attempts)
    order, scores = unreadable_last(kept.order, retrieval_scores(candidates), candidates)
    return RerankResult(tuple(order), scores, None, None, (kept.audit,), None)


def retrieval_scores(candidates: Candidates) -> tuple[float, ...]:
    """Return the scores that candidates came with, none above the one before; all 0 where one has none."""
    scores: list[float] = []
    for node in candidates.nodes:
        if node.score is None or not math.isfinite(node.score):
            return (0.0,) * len(candidates)
        scores.append(float(min(node.score, scores[-1] if scores else node.score)))
    return tuple(scores)


def unreadable_last(
    order: Sequence[int], scores: Sequence[float], candidates: Candidates
) -> tuple[list[int], tuple[float, ...]]:
    """Move candidates that could not be looked at behind the others, in their retrieval order, at score 0."""
    problems = candidates.problems
    readable = [index for index in order if index not in problems]
    kept = [score for index, score in zip(order, scores, strict=True) if index not in problems]
    last = min(0.0, kept[-1] if kept else 0.0)  # scores of retrieval can lie below
    return [*readable, *sorted(problems)], (*kept, *(last for _ in problems))
