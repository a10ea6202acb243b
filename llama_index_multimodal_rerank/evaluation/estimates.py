"""Means with bootstrap intervals."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
CONFIDENCE = 0.95
DIGITS = 4


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval.

    Attributes:
        mean: of all values; of several samples, the mean of their means.
        low: lower end of the interval.
        high: upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float]:
        """Return the three numbers."""
        return asdict(self)


def estimate(*samples: npt.ArrayLike) -> Estimate:
    """Return the mean of values with a bootstrap interval by scipy (BCa, 2,000 resamples, one seed for all).

    Queries are what is drawn again, so differences between two lists are paired: give the difference of each
    query. Where all values are the same there is nothing to draw from, and the interval is the mean alone.

    Args:
        samples: values of one set of queries, or of several, each drawn from by itself: then every set counts
            the same, however many queries it has.

    Returns:
        The estimate, rounded to 4 digits.

    Raises:
        ImportError: scipy is not installed.
        ValueError: no sample, or one without values.
    """
    values = [np.asarray(sample, dtype=np.float64) for sample in samples]
    if not values or any(each.size == 0 for each in values):
        raise ValueError("an estimate needs at least one value of every sample")
    mean = _mean_of_means(*values)
    low = high = mean
    if any(np.unique(each).size > 1 for each in values):
        for method in ("BCa", "percentile"):  # BCa is undefined for some samples, scipy then returns NaN
            low, high = _interval(values, method)
            if math.isfinite(low) and math.isfinite(high):
                break
    return Estimate(round(mean, DIGITS), round(low, DIGITS), round(high, DIGITS))


def _interval(values: list[npt.NDArray[np.float64]], method: str) -> tuple[float, float]:
    try:
        from scipy.stats import bootstrap  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "the intervals are scipy's: pip install 'llama-index-multimodal-rerank[evaluation]'"
        ) from error

    # A sample of one value, or of one value repeated, has no spread to draw from: it is a constant.
    drawn = [each for each in values if np.unique(each).size > 1]
    fixed = [each.mean() for each in values if np.unique(each).size == 1]

    def statistic(*samples: npt.NDArray[np.float64], axis: int = -1) -> Any:
        return (sum(sample.mean(axis=axis) for sample in samples) + sum(fixed)) / len(values)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's of NaN, which is dealt with above
        found = bootstrap(
            tuple(drawn),
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method=method,
            vectorized=True,
            paired=False,
            batch=100,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(found.low), float(found.high)


def _mean_of_means(*samples: npt.NDArray[np.float64]) -> float:
    return float(np.mean([sample.mean() for sample in samples]))
