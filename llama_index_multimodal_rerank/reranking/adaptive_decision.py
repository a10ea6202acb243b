"""Whether a query is reranked: from its nodes, a margin and a budget to a decision that says why."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from llama_index.core.schema import NodeWithScore, QueryBundle

from .budget import CallBudget, Reservation
from .candidates import Candidates
from .margins import Places, score_margin


@runtime_checkable
class PlanningReranker(Protocol):
    """A reranker that knows what a query costs, and audits its answers."""

    def planned_calls(self, num_candidates: int, query: QueryBundle) -> int:
        """Return how many model calls a query takes."""
        ...


@dataclass(frozen=True)
class Rules:
    """When to rerank; the fields of ``AdaptiveRerank``."""

    margin: float | None
    margin_places: Places
    calls_per_query: int | None
    budget: CallBudget | None


@dataclass(frozen=True)
class Decision:
    """What was decided about a query.

    Attributes:
        candidates: its nodes, each once, in retrieval order.
        query: the query.
        shown: how many of the first nodes are reranked; 0: it is skipped.
        details: why, as JSON values, for the audit.
        planned: model calls that reranking takes.
        taken: the same, as the budget let them through.
    """

    candidates: Candidates
    query: QueryBundle | None
    shown: int
    details: dict[str, Any]
    planned: int = 0
    taken: Reservation | None = None

    @property
    def nodes(self) -> list[NodeWithScore]:
        """The nodes to rerank."""
        return self.candidates.nodes[: self.shown]


def decide(reranker: Any, candidates: Candidates, query: QueryBundle | None, rules: Rules) -> Decision:
    """Decide about a query; calls are taken from the budget if it is to be reranked."""
    n, budget = len(candidates), rules.budget
    details: dict[str, Any] = {}

    def skipped(because: str) -> Decision:
        return Decision(candidates, query, 0, {"decision": "skipped", "because": because, **details})

    if n == 0:
        return skipped("no nodes")
    if rules.margin is not None:
        if n == 1:
            return skipped("one node")
        margin = score_margin([node.score for node in candidates.nodes], rules.margin_places)
        details.update({"margin": margin, "threshold": rules.margin})
        if margin is not None and margin >= rules.margin:
            return skipped("margin")

    def planned(num_candidates: int) -> int:
        if query is None or not isinstance(reranker, PlanningReranker):
            return 1  # nobody knows
        return reranker.planned_calls(num_candidates, query)

    calls, shown = planned(n), n
    limits = {
        "calls_per_query": rules.calls_per_query,
        "budget": None if budget is None else budget.calls,
    }
    for because, limit in limits.items():
        if limit is None or calls <= limit:
            continue
        # More candidates never take fewer calls. One alone is no ranking.
        shown = 1 + bisect.bisect_right(range(2, shown), limit, key=planned)
        details.update({"planned_calls": calls, "calls_allowed": limit})
        if shown < 2:
            return skipped(because)
        calls = planned(shown)
        details["left_out"] = n - shown
    details["planned_calls"] = calls
    taken = None
    if budget is not None:
        taken = budget.take(calls)
        details.update({"budget_used": budget.used, "budget": budget.calls})
        if taken is None:
            return skipped("budget")
    return Decision(candidates, query, shown, {"decision": "reranked", **details}, calls, taken)
