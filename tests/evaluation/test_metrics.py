"""Metrics and intervals against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from llama_index.core.evaluation.retrieval.metrics import AveragePrecision

from llama_index_multimodal_rerank.evaluation import (
    Metric,
    average_precision_at,
    estimate,
    mrr_at,
    ndcg_at,
    recall_at,
)

RANKED = ["b", "x", "a", "y", "z", "c"]
"""Right are a (the target), b and c: at 3, 1 and 6."""


def test_recall_is_the_first_hit() -> None:
    assert recall_at(1).score(["a", "b", "c"], RANKED) == 1
    assert recall_at(1).score(["a"], RANKED) == 0
    assert recall_at(3).score(["a"], RANKED) == 1
    assert recall_at(2, right="target").score(["a", "b", "c"], RANKED) == 0


def test_average_precision_divides_by_at_most_k() -> None:
    """At 2: (1/1) / min(3, 2) = 1/2. At 6: (1/1 + 2/3 + 3/6) / 3 = 13/18."""
    assert average_precision_at(2).score(["a", "b", "c"], RANKED) == pytest.approx(1 / 2)
    assert average_precision_at(6).score(["a", "b", "c"], RANKED) == pytest.approx(13 / 18)
    # LlamaIndex' own divides by all right ones: 1/3
    own = AveragePrecision().compute(expected_ids=["a", "b", "c"], retrieved_ids=RANKED[:2]).score
    assert own == pytest.approx(1 / 3)


def test_reciprocal_rank() -> None:
    assert mrr_at(6).score(["a", "c"], RANKED) == pytest.approx(1 / 3)
    assert mrr_at(2).score(["a", "c"], RANKED) == 0


def test_ndcg_has_all_right_ones_in_its_ideal_list() -> None:
    """At 3, of three right ones: (1/log2(2) + 1/log2(4)) / (1/log2(2) + 1/log2(3) + 1/log2(4)).

    At 1 the first is right, and still it is no 1: the ideal list has all three.
    """
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg_at(3).score(["a", "b", "c"], RANKED) == pytest.approx(1.5 / ideal)
    assert ndcg_at(1).score(["a", "b", "c"], RANKED) == pytest.approx(1 / ideal)


@pytest.mark.parametrize("metric", [recall_at(5), average_precision_at(5), mrr_at(5), ndcg_at(5)])
def test_nothing_retrieved_scores_nothing(metric: Metric) -> None:
    assert metric.score(["a"], []) == 0


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        recall_at(0)


def test_intervals_are_those_of_scipy() -> None:
    """The mean, and the same ends each time; paired differences have a narrower interval than the lists."""
    values = np.array([0.0, 1.0] * 50)
    found = estimate(values)
    assert found.mean == 0.5
    # the normal approximation: 0.5 -+ 1.96 * 0.5 / 10
    assert found.low == pytest.approx(0.402, abs=0.02)
    assert found.high == pytest.approx(0.598, abs=0.02)
    assert estimate(values) == found
    better = values.copy()
    better[0] = 1.0
    change = estimate(better - values)
    assert change.mean == 0.01
    assert change.high - change.low < (found.high - found.low) / 3


def test_no_spread_gives_the_mean_alone() -> None:
    assert str(estimate([1.0, 1.0, 1.0])) == "1.000 [1.000, 1.000]"
    assert estimate([0.25]).to_dict() == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_every_sample_counts_the_same() -> None:
    """Means 1/2 of 4 values and 1 of 100: 3/4, not 102/104. The second has no spread."""
    found = estimate([0.0, 1.0, 0.0, 1.0], [1.0] * 100)
    assert found.mean == 0.75
    assert 0.5 <= found.low < 0.75 < found.high <= 1


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 0.0], [1.0] * 99 + [0.0]])
def test_small_and_lopsided_samples_have_finite_intervals(values: list[float]) -> None:
    found = estimate(values)
    assert math.isfinite(found.low)
    assert found.low <= found.mean <= found.high


def test_nothing_to_estimate() -> None:
    for samples in ([], [[]], [[1.0], []]):
        with pytest.raises(ValueError, match="at least one value"):
            estimate(*samples)
