"""Queries under way: what is asked of each, what was read for it, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.schema import NodeWithScore, QueryBundle

from ..images.access import ImageAccess
from ..vlm.calls import ModelCalls
from ..vlm.costs import CostMeter, metered
from .candidates import Candidates
from .result import RerankResult

Rank = Callable[[QueryBundle, Candidates], ModelCalls[RerankResult]]


class AskedQuery:
    """A query and its candidates.

    Args:
        nodes: the candidates.
        query: the query.
        access: which pictures may be read.

    Attributes:
        candidates: the candidates, each once.
        cost: what the calls for the query have taken.
    """

    def __init__(self, nodes: Sequence[NodeWithScore], query: QueryBundle, access: ImageAccess) -> None:
        self.nodes, self.query = list(nodes), query
        self.candidates = Candidates(nodes, access)
        self.cost = CostMeter()

    def calls(self, rank: Rank) -> ModelCalls[RerankResult]:
        """Return the calls that rank the candidates, with a meter on them."""
        return metered(rank(self.query, self.candidates), self.cost)


class AskedBatch:
    """Queries that are worked on together.

    Args:
        queries: nodes and query, of each.
        access: which pictures may be read.
        progress: a progress bar over queries.
    """

    def __init__(
        self,
        queries: Sequence[tuple[Sequence[NodeWithScore], QueryBundle]],
        access: ImageAccess,
        progress: Any,
    ) -> None:
        self.asked = [AskedQuery(nodes, query, access) for nodes, query in queries]
        self._progress = progress

    def calls(self, rank: Rank) -> list[ModelCalls[RerankResult]]:
        """Return the calls of each query."""
        return [asked.calls(rank) for asked in self.asked]

    def done(self, number: int) -> None:
        """Note that a query is ranked, or has failed."""
        self.asked[number].candidates.release()
        self._progress.update()
