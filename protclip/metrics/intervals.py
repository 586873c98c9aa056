"""How sure a metric is: resampling the rows that it was measured on (Efron and Tibshirani 1993, An Introduction to the
Bootstrap).

The rows stand for all that might have been in the test split. What another seed of a training would give is not in it:
several seeds are means, on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RowMetric = Callable[[NDArray[np.int64]], float]
"""A metric over rows, of which one may come several times."""

NUM_RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """From low to high with the probability LEVEL."""

    low: float
    high: float


class Difference(NamedTuple):
    """Of two models on the same rows."""

    value: float
    """The first one's metric less the second one's."""
    interval: Interval
    p_value: float
    """Two-sided, of no difference: twice the share of resamples whose difference has the other sign, or none."""


def bootstrap_interval(
    metrics: Sequence[RowMetric], num_rows: int, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """The percentile interval of a metric.

    Args:
        metrics: of one model, one for each seed of its training; their mean is meant.
        num_rows: of the test split.
        seed: of the resamples.
        num_resamples: how many of them.
    """
    return _percentiles(_resampled(lambda rows: _mean(metrics, rows), num_rows, seed, num_resamples))


def paired_bootstrap(
    first: Sequence[RowMetric],
    second: Sequence[RowMetric],
    num_rows: int,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Difference:
    """Whether one model is better than another: both are measured on the same resampled rows.

    Args:
        first: of one model, one for each seed of its training.
        second: of the other, of the same seeds.
        num_rows: of the test split.
        seed: of the resamples.
        num_resamples: how many of them.
    """
    assert len(first) == len(second), "the same seeds of both"

    def difference(rows: NDArray[np.int64]) -> float:
        return _mean(first, rows) - _mean(second, rows)

    differences = _resampled(difference, num_rows, seed, num_resamples)
    # One more of each, the rows as they are, so that no p-value is 0.
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0)) + 1
    p_value = min(1.0, 2 * tail / (num_resamples + 1))
    return Difference(difference(np.arange(num_rows)), _percentiles(differences), p_value)


def _resampled(of: RowMetric, num_rows: int, seed: int, num_resamples: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    return np.array([of(generator.integers(0, num_rows, num_rows)) for _ in range(num_resamples)])


def _mean(metrics: Sequence[RowMetric], rows: NDArray[np.int64]) -> float:
    return sum(metric(rows) for metric in metrics) / len(metrics)


def _percentiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
