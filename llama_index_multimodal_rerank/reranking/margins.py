"""How far apart the first retrieval scores are, and from which margin on reranking can be saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

Places = tuple[int, int]
"""Two places of a ranked list, from 1, the upper one first."""

FIRST_TWO: Places = (1, 2)


def check_places(places: Places) -> Places:
    """Return the places.

    Raises:
        ValueError: they are not two places, the upper one first.
    """
    upper, lower = places
    if not 1 <= upper < lower:
        raise ValueError(f"places count from 1, and the first lies above the second: got {tuple(places)}")
    return places


def score_margin(scores: Sequence[float | None], places: Places = FIRST_TWO) -> float | None:
    """Return by how much the score of one place is above that of another.

    Args:
        scores: retrieval scores, in retrieval order.
        places: the two places, from 1. Where the list ends before the second, its last place.

    Returns:
        The difference, below 0 where scores rise (distances do); None where it cannot be said: a score is
        missing or not finite, or there are too few.

    Example:
        >>> score_margin([0.75, 0.5, 0.25])
        0.25
        >>> score_margin([0.75, 0.5, 0.25], (1, 10))
        0.5
        >>> score_margin([0.75, None]) is None
        True
    """
    upper, lower = places[0], min(places[1], len(scores))
    if lower <= upper:
        return None
    above, below = scores[upper - 1], scores[lower - 1]
    if above is None or below is None:
        return None
    margin = float(above) - float(below)
    return margin if math.isfinite(margin) else None


ONE_SIDED_95 = 1.645
"""Standard errors from a normal mean to the bound that it is below in 95 of 100 cases."""


@dataclass(frozen=True)
class JudgedQuery:
    """A query of which it is known what is right, retrieved and reranked once.

    Attributes:
        scores: retrieval scores, in retrieval order.
        before: quality of the retrieved list, such as its nDCG.
        after: quality of the reranked list.
        calls: model calls that reranking takes, 0 or more.
    """

    scores: Sequence[float | None]
    before: float
    after: float
    calls: int = 1


@dataclass(frozen=True)
class MarginEffect:
    """What comes of skipping the queries at or above a margin.

    Attributes:
        margin: the margin; None: nothing is skipped.
        calls: share of the model calls that are made, 0 to 1.
        quality: mean quality of all queries, skipped or reranked.
        loss: by how much that is below the mean with everything reranked; below 0 where it is better.
        error: standard error of ``loss``, 0 for a single query.
    """

    margin: float | None
    calls: float
    quality: float
    loss: float
    error: float


def margin_effect(
    queries: Sequence[JudgedQuery], margin: float | None, *, places: Places = FIRST_TWO
) -> MarginEffect:
    """Return what ``AdaptiveRerank(margin=margin, margin_places=places)`` does to judged queries.

    Raises:
        ValueError: there are no queries, or no such places.
    """
    if not queries:
        raise ValueError("no queries to measure a margin on")
    check_places(places)
    made, quality, losses = 0, [], []
    for query in queries:
        own = score_margin(query.scores, places)
        skip = margin is not None and own is not None and own >= margin
        made += 0 if skip else query.calls
        quality.append(query.before if skip else query.after)
        losses.append(query.after - query.before if skip else 0.0)
    everything = sum(query.calls for query in queries)
    return MarginEffect(
        margin,
        calls=made / everything if everything else 0.0,
        quality=mean(quality),
        loss=mean(losses),
        error=stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0,
    )


def margin_effects(queries: Sequence[JudgedQuery], *, places: Places = FIRST_TWO) -> list[MarginEffect]:
    """Return the effect of every margin that makes a difference: none skipped first, then falling margins.

    Raises:
        ValueError: there are no queries, or no such places.
    """
    found = {score_margin(query.scores, check_places(places)) for query in queries}
    margins = sorted((each for each in found if each is not None and each >= 0), reverse=True)
    return [margin_effect(queries, margin, places=places) for margin in (None, *margins)]


def choose_margin(
    queries: Sequence[JudgedQuery],
    *,
    max_loss: float = 0.005,
    standard_errors: float = ONE_SIDED_95,
    places: Places = FIRST_TWO,
) -> MarginEffect:
    """Return the margin that saves the most model calls at a loss of quality within ``max_loss``.

    Margins are tried from the greatest down, until one loses too much. Of a few hundred queries the loss is
    known to about a hundredth only, and the margin that looks best is the one that was lucky most. So the
    loss has to stay within ``max_loss`` with its error added. Measure on other queries than these what comes
    of it (:func:`margin_effect`).

    Args:
        queries: judged queries, the more the better.
        max_loss: mean quality that may be lost against reranking everything, 0 or more.
        standard_errors: how many are added to the loss, 0 or more. Default: those of a one-sided 95 % bound.
            0 takes these queries for all that will ever be asked.
        places: the two places whose scores are compared.

    Returns:
        The margin and its effect; ``margin`` is None where nothing can be saved.

    Raises:
        ValueError: there are no queries, no such places, or a limit is below 0.

    Example:
        Reranking does nothing for the first two queries and mends the third.

        >>> queries = [
        ...     JudgedQuery([0.9, 0.5], before=1.0, after=1.0),
        ...     JudgedQuery([0.8, 0.6], before=0.5, after=0.5),
        ...     JudgedQuery([0.7, 0.6], before=0.2, after=0.8),
        ... ]
        >>> chosen = choose_margin(queries)
        >>> round(chosen.margin, 3), round(chosen.calls, 3), chosen.loss
        (0.2, 0.333, 0.0)
    """
    for name, value in (("max_loss", max_loss), ("standard_errors", standard_errors)):
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, got {value}")
    best, *effects = margin_effects(queries, places=places)
    for effect in effects:
        # Sums of quality are rounded, so that a loss of max_loss may come out a little above it.
        if effect.loss + standard_errors * effect.error > max_loss + 1e-12:
            break
        best = effect
    return best
