"""Means, what reranking changed, and what composing picture and text brought; with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .benchmark import Sides
from .estimates import Estimate, estimate
from .query_results import RETRIEVED, QueryResult

Samples = list[npt.NDArray[np.float64]]
"""Scores of one list by one metric, an array for each evaluation."""

_SIDES: tuple[Sides, ...] = ("image", "text", "composed")
_NAMES = {"image": "image only", "text": "text only", "composed": "composed"}


@dataclass(frozen=True)
class Row:
    """Figures of one list.

    Attributes:
        asked: what the queries have, ``"composed"`` for picture and text.
        sides: what they were asked with; of a gap, the side that composing is held against.
        ranking: the list's name.
        queries: how many.
        figures: by metric.
    """

    asked: Sides
    sides: Sides
    ranking: str
    queries: int
    figures: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {
            "asked": self.asked,
            "sides": self.sides,
            "ranking": self.ranking,
            "queries": self.queries,
            "figures": {name: each.to_dict() for name, each in self.figures.items()},
        }


@dataclass(frozen=True)
class Gap:
    """Composed minus the better of picture alone and text alone, of one list.

    Attributes:
        ranking: the list's name.
        queries: how many.
        figures: by metric, each query against itself. The better side is the one with the higher mean.
        better: that side, by metric.
    """

    ranking: str
    queries: int
    figures: Mapping[str, Estimate]
    better: Mapping[str, Sides]

    def to_dict(self) -> dict[str, Any]:
        """Return the gap for JSON."""
        return {
            "ranking": self.ranking,
            "queries": self.queries,
            "figures": {name: each.to_dict() for name, each in self.figures.items()},
            "better": dict(self.better),
        }


@dataclass(frozen=True)
class Summary:
    """Figures of one set of queries, or the average of several.

    Attributes:
        metrics: their names.
        means: of every list.
        changes: each reranker's list minus the retrieved one, paired.
        gaps: composed minus the better side, paired; empty if picture or text were not asked alone.
    """

    metrics: tuple[str, ...]
    means: tuple[Row, ...]
    changes: tuple[Row, ...]
    gaps: tuple[Gap, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {name: [row.to_dict() for row in getattr(self, name)] for name in ("means", "changes", "gaps")}

    def to_markdown(self) -> str:
        """Return a Markdown table: means, then gaps, then changes, each with its 95 % interval."""
        lines = [
            f"| asked with | list | queries |{''.join(f' {name} |' for name in self.metrics)}",
            "| --- | --- | --- |" + " --- |" * len(self.metrics),
        ]
        lines += [self._line(_asked_with(row), row.ranking, row) for row in self.means]
        lines += [self._line("composed minus better side", gap.ranking, gap) for gap in self.gaps]
        lines += [self._line(_asked_with(row), f"{row.ranking} minus retrieved", row) for row in self.changes]
        return "\n".join(lines)

    def _line(self, first: str, second: str, row: Row | Gap) -> str:
        figures = "".join(f" {row.figures[name]} |" for name in self.metrics)
        return f"| {first} | {second} | {row.queries} |{figures}"


def _asked_with(row: Row) -> str:
    """Name what was asked with; queries without a picture are not those whose picture was left out."""
    name = _NAMES[row.sides]
    return name if row.sides == row.asked else f"{row.asked}, {name}"


def summarise(metrics: tuple[str, ...], parts: Sequence[Sequence[QueryResult]]) -> Summary:
    """Sum the results of one evaluation up, or those of several, of which each then counts the same.

    Raises:
        ValueError: an evaluation has other lists than the first, or the right answers are not known.
    """
    if any(not each.scores for results in parts for result in results for each in result.lists.values()):
        raise ValueError("the right answers of these queries are not known, so there are no figures")
    means: list[Row] = []
    changes: list[Row] = []
    gaps: list[Gap] = []
    for asked in reversed(_SIDES):
        part = [[result for result in results if result.asked == asked] for results in parts]
        if not any(part):
            continue
        table = _Table(asked, part, metrics)
        means += table.rows(table.samples)
        changes += table.changes()
        gaps += table.gaps()
    return Summary(metrics, tuple(means), tuple(changes), tuple(gaps))


class _Table:
    """The scores of queries that have the same sides."""

    def __init__(self, asked: Sides, members: list[list[QueryResult]], metrics: tuple[str, ...]) -> None:
        self._asked: Sides = asked
        self._members = members
        self._metrics = metrics
        keys = [tuple(result.lists) for results in members for result in results]
        if any(set(each) != set(keys[0]) for each in keys) or not all(members):
            raise ValueError("the evaluations have different lists, so they have no common figures")
        self._keys = sorted(keys[0], key=lambda key: (_SIDES.index(key[0]), keys[0].index(key)))

    def samples(self, sides: Sides, ranking: str, metric: str) -> Samples:
        return [
            np.array([result.lists[sides, ranking].scores[metric] for result in results])
            for results in self._members
        ]

    def rows(self, samples: Callable[[Sides, str, str], Samples], *, first: bool = True) -> list[Row]:
        return [
            Row(
                self._asked,
                sides,
                ranking,
                self._count,
                {metric: estimate(*samples(sides, ranking, metric)) for metric in self._metrics},
            )
            for sides, ranking in self._keys
            if first or ranking != RETRIEVED
        ]

    def changes(self) -> list[Row]:
        def change(sides: Sides, ranking: str, metric: str) -> Samples:
            return _minus(self.samples(sides, ranking, metric), self.samples(sides, RETRIEVED, metric))

        return self.rows(change, first=False)

    def gaps(self) -> list[Gap]:
        if self._asked != "composed" or {sides for sides, _ in self._keys} != {*_SIDES}:
            return []
        return [self._gap(ranking) for sides, ranking in self._keys if sides == "composed"]

    def _gap(self, ranking: str) -> Gap:
        figures: dict[str, Estimate] = {}
        better: dict[str, Sides] = {}
        for metric in self._metrics:
            alone: dict[Sides, Samples] = {
                "image": self.samples("image", ranking, metric),
                "text": self.samples("text", ranking, metric),
            }
            side = max(alone, key=lambda each: _mean(alone[each]))
            better[metric] = side
            figures[metric] = estimate(*_minus(self.samples("composed", ranking, metric), alone[side]))
        return Gap(ranking, self._count, figures, better)

    @property
    def _count(self) -> int:
        return sum(map(len, self._members))


def _minus(after: Samples, before: Samples) -> Samples:
    return [one - other for one, other in zip(after, before, strict=True)]


def _mean(samples: Samples) -> float:
    return float(np.mean([sample.mean() for sample in samples]))
