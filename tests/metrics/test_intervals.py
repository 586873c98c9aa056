"""Bootstrap: its intervals are as wide as theory says, and it finds differences that are there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from protclip.metrics.intervals import bootstrap_interval, paired_bootstrap

pytestmark = pytest.mark.unit


def mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], float]:
    return lambda rows: float(values[rows].mean())


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval([mean_of(values)], 400, seed=1, num_resamples=4000)
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.15 * error)
    assert bootstrap_interval([mean_of(values)], 400, seed=1) == bootstrap_interval([mean_of(values)], 400, seed=1)
    assert bootstrap_interval([mean_of(values)], 400, seed=1) != bootstrap_interval([mean_of(values)], 400, seed=2)


def test_several_seeds_are_their_mean() -> None:
    values = np.random.default_rng(0).standard_normal(100)
    both = bootstrap_interval([mean_of(values), mean_of(-values)], 100, seed=1)
    assert both == pytest.approx((0, 0))


def test_a_pair_tells_a_difference_that_single_intervals_hide() -> None:
    generator = np.random.default_rng(2)
    hard = generator.standard_normal(300)
    first, second = hard + 0.1 + 0.05 * generator.standard_normal(300), hard
    alone = [bootstrap_interval([mean_of(values)], 300, seed=0) for values in (first, second)]
    assert alone[0].low < alone[1].high
    found = paired_bootstrap([mean_of(first)], [mean_of(second)], 300, seed=0)
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert 0.09 < found.interval.low < found.interval.high < 0.11
    assert found.p_value == pytest.approx(2 / 1001)
    swapped = paired_bootstrap([mean_of(second)], [mean_of(first)], 300, seed=0)
    assert (swapped.value, swapped.p_value) == (-found.value, found.p_value)


@pytest.mark.slow
def test_equal_models_do_not_differ_and_unlike_ones_seldom_by_chance() -> None:
    generator = np.random.default_rng(3)
    values = generator.standard_normal(50)
    assert paired_bootstrap([mean_of(values)], [mean_of(values)], 50, seed=0).p_value == 1.0
    p_values = []
    for seed in range(200):
        first, second = (mean_of(generator.standard_normal(80)) for _ in range(2))
        p_values.append(paired_bootstrap([first], [second], 80, seed=seed, num_resamples=200).p_value)
    assert 0.0 < np.mean(np.array(p_values) < 0.05) < 0.1
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)
