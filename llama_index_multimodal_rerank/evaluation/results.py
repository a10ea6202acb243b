"""What an evaluation found: every list with its scores, and the protocol under which it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .query_results import RETRIEVED, QueryResult, RankedList
from .summary import Summary, summarise


@dataclass(frozen=True)
class EvaluationProtocol:
    """How figures came about; without it they cannot be compared with others.

    Attributes:
        benchmark: name of the benchmark.
        split: of its queries.
        queries: how many were asked.
        complete: False if the run was interrupted before all were.
        gallery: which pictures were searched.
        gallery_size: how many; None if that is not known.
        reference: the queries' own pictures were ``"removed"`` from the rankings, or ``"kept"``.
        caption_join: how a query's text was made of several captions; None if it was not.
        model: the embedding model.
        fingerprint: digest of the model's fingerprint (weights, preprocessing, dimension), 16 hexadecimal
            digits; None if it has none.
        reranker: the rerankers by the names of their lists, with their settings.
        rerank_depth: how many of the first each of them was given; None without a reranker.
        seconds_per_query: by list, in the mean; ``"retrieved"`` with the embedding of the query, a reranker's
            without retrieval.
    """

    benchmark: str
    split: str
    queries: int
    complete: bool
    gallery: str
    gallery_size: int | None
    reference: str
    caption_join: str | None
    model: str
    fingerprint: str | None
    reranker: Mapping[str, str] | None
    rerank_depth: int | None
    seconds_per_query: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """What :func:`.evaluate.evaluate` found.

    Attributes:
        protocol: how it was found.
        metrics: their names, in the order of the tables.
        results: of each query that was asked.
    """

    protocol: EvaluationProtocol
    metrics: tuple[str, ...]
    results: tuple[QueryResult, ...] = field(repr=False)

    def summary(self, group: str | None = None) -> Summary:
        """Return means, gaps and changes with intervals; of a group of the queries, or of all.

        Raises:
            ValueError: no query has the group, or the right answers are not known.
        """
        members = [each for each in self.results if group is None or group in each.groups]
        if not members:
            known = ", ".join(map(repr, self.groups)) or "none"
            raise ValueError(f"no query is in group {group!r}; there are {known}")
        return summarise(self.metrics, [members])

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the queries, in the order in which they appear."""
        return tuple(dict.fromkeys(group for result in self.results for group in result.groups))

    def rankings(self, ranking: str = RETRIEVED) -> dict[str, RankedList]:
        """Return the lists of the queries as they were asked, by query id.

        Raises:
            ValueError: there is no list of this name.
        """
        names = dict.fromkeys(name for result in self.results for _, name in result.lists)
        if ranking not in names:
            raise ValueError(f"ranking must be one of {', '.join(map(repr, names))}, got {ranking!r}")
        return {result.id_: result.lists[result.asked, ranking] for result in self.results}

    def to_dict(self) -> dict[str, Any]:
        """Return protocol and figures for JSON: ``{"protocol", "figures", "groups"}``."""
        scored = self._is_scored
        return {
            "protocol": self.protocol.to_dict(),
            "figures": self.summary().to_dict() if scored else None,
            "groups": {group: self.summary(group).to_dict() for group in self.groups} if scored else {},
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as a text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def to_markdown(self) -> str:
        """Return a table of the figures, and below it the protocol."""
        if not self._is_scored:
            table = "The right answers of these queries are not known; write a submission file."
        else:
            table = self.summary().to_markdown()
        return f"{table}\n\n{protocol_table([self.protocol])}"

    @property
    def _is_scored(self) -> bool:
        return all(each.scores for result in self.results for each in result.lists.values())


def average(evaluations: Sequence[Evaluation]) -> Summary:
    """Return figures in which every evaluation counts the same: FashionIQ's average of its three categories.

    Intervals draw the queries of each evaluation by themselves.

    Raises:
        ValueError: none is given, their metrics or lists differ, or the right answers are not known.
    """
    if not evaluations:
        raise ValueError("at least one evaluation is needed")
    if len({each.metrics for each in evaluations}) > 1:
        raise ValueError(f"the metrics differ: {[list(each.metrics) for each in evaluations]}")
    return summarise(evaluations[0].metrics, [each.results for each in evaluations])


def protocol_table(protocols: Sequence[EvaluationProtocol]) -> str:
    """Return protocols as a Markdown table, one column for each."""
    rows = [{name: _cell(value) for name, value in each.to_dict().items()} for each in protocols]
    lines = ["| protocol |" + " |" * len(rows), "| --- |" + " --- |" * len(rows)]
    lines += [f"| {name.replace('_', ' ')} | {' | '.join(row[name] for row in rows)} |" for name in rows[0]]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_cell(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).replace("|", "\\|").replace("\n", " ")
