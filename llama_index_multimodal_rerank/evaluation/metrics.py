"""Metrics of one ranked list: LlamaIndex' own, cut and normalised as the benchmarks define them.

What they compute, the same in llama-index-core 0.14.0 and 0.14.25:

- ``HitRate``: 1 if any right one is in the list, else 0. The benchmarks call its mean Recall@K.
- ``MRR``: 1 / place of the first right one, 0 without one.
- ``AveragePrecision``: the precisions at the places of right ones, divided by the number of *all* right ones.
  CIRCO divides by the smaller of that number and K; see :func:`average_precision_at`.
- ``NDCG``: its ideal list holds *all* right ones, however short the list is. So nDCG@K of a query with more
  than K right ones stays below 1.

All of them refuse an empty list; here a query for which nothing was retrieved scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llama_index.core.evaluation.retrieval.metrics import MRR, NDCG, AveragePrecision, HitRate
from llama_index.core.evaluation.retrieval.metrics_base import BaseRetrievalMetric


@dataclass(frozen=True)
class Metric:
    """A metric of one ranked list; the mean over queries is what is reported.

    Attributes:
        name: as it stands in tables, ``"Recall@10"``.
        measure: LlamaIndex' metric.
        depth: how many of the first are looked at, K.
        right: which pictures count: all relevant ones, or only the first of them, the target.
        ranking: ranked among the whole gallery, or among the query's subset.
        at_most_depth: divide by at most K right ones, where ``measure`` divides by all of them.
    """

    name: str
    measure: BaseRetrievalMetric
    depth: int
    right: Literal["relevant", "target"] = "relevant"
    ranking: Literal["gallery", "subset"] = "gallery"
    at_most_depth: bool = False

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"{self.name}: depth must be at least 1, got {self.depth}")

    def score(self, relevant: Sequence[str], ranked: Sequence[str]) -> float:
        """Return the score of one list.

        Args:
            relevant: ids of the right pictures, the target first, none of them twice; at least one.
            ranked: ids as they were ranked, the best first.

        Returns:
            From 0 to 1.
        """
        right = list(relevant if self.right == "relevant" else relevant[:1])
        first = list(ranked[: self.depth])
        if not first:
            return 0.0
        score = float(self.measure.compute(expected_ids=right, retrieved_ids=first).score)
        return score * len(right) / min(len(right), self.depth) if self.at_most_depth else score


def recall_at(depth: int, *, right: Literal["relevant", "target"] = "relevant") -> Metric:
    """Recall@K of composed image retrieval: the share of queries with a right picture among the first K.

    Where a query has several right pictures it is a hit rate; ``right="target"`` looks for the first only.
    """
    return Metric(f"Recall@{depth}", HitRate(), depth, right=right)


def subset_recall_at(depth: int) -> Metric:
    """Recall_subset@K of CIRR: the share of queries whose target is among the first K of their subset."""
    return Metric(f"Recall_subset@{depth}", HitRate(), depth, right="target", ranking="subset")


def average_precision_at(depth: int) -> Metric:
    """AP@K of CIRCO, its mean is mAP@K: precisions at the right ones' places over min(right ones, K)."""
    return Metric(f"mAP@{depth}", AveragePrecision(), depth, at_most_depth=True)


def mrr_at(depth: int) -> Metric:
    """Reciprocal rank of the first right picture among the first K; 0 without one."""
    return Metric(f"MRR@{depth}", MRR(), depth)


def ndcg_at(depth: int) -> Metric:
    """NDCG of the first K, with all right pictures of the gallery in the ideal list."""
    return Metric(f"nDCG@{depth}", NDCG(), depth)
