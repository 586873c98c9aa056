"""Metrics of predictions on hand-worked cases and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from protclip.metrics.labels import (
    accuracy,
    f1_max,
    f1_max_by_counts,
    mean_absolute_error,
    micro_aupr,
    micro_f1,
    spearman,
)

pytestmark = pytest.mark.unit


def f1_max_by_hand(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    best = 0.0
    for threshold in np.unique(scores):
        predicted = scores >= threshold
        precisions = [row[mask].mean() for row, mask in zip(labels, predicted, strict=True) if mask.any()]
        recalls = [mask[row].mean() if row.any() else 0.0 for row, mask in zip(labels, predicted, strict=True)]
        precision, recall = np.mean(precisions), np.mean(recalls)
        best = max(best, 2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return best


def test_f1_max_is_that_worked_by_hand() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0]], bool)
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.2, 0.3]])
    # At 0.9 the first protein alone predicts: precision 1, recall (1 + 0) / 2. At 0.7 precision is (1/2 + 1) / 2 and
    # recall (1 + 1/2) / 2, both 3/4. Lower ones lose more than they gain, such as 0.2: (1/2 + 2/3) / 2 and 1.
    assert f1_max(labels, scores) == pytest.approx(0.75)
    assert f1_max(labels, labels.astype(float)) == 1.0


def test_f1_max_equals_brute_force_on_random_cases_with_ties_and_empty_rows() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        num, classes = generator.integers(1, 7), generator.integers(1, 6)
        labels = generator.random((num, classes)) < 0.4
        scores = generator.integers(0, 5, (num, classes)) / 4
        assert f1_max(labels, scores) == pytest.approx(f1_max_by_hand(labels, scores), abs=1e-9)


def test_f1_max_by_counts_is_that_of_the_repeated_rows() -> None:
    generator = np.random.default_rng(1)
    labels, scores = generator.random((40, 6)) < 0.3, generator.integers(0, 20, (40, 6)) / 20
    of_counts = f1_max_by_counts(labels, scores)
    for _ in range(10):
        rows = generator.integers(0, 40, 40)
        counts = np.bincount(rows, minlength=40).astype(float)
        assert of_counts(counts) == pytest.approx(f1_max_by_hand(labels[rows], scores[rows]))


@pytest.mark.slow
def test_micro_aupr_and_f1_are_those_worked_by_hand() -> None:
    labels = np.array([[1, 0], [0, 1]], bool)
    scores = np.array([[0.9, 0.8], [0.1, 0.7]])
    assert micro_aupr(labels, scores) == pytest.approx((1 + 2 / 3) / 2)  # right at the first and at the third
    assert micro_f1(labels, scores) == pytest.approx(2 * 2 / (3 + 2))  # 3 predicted, 2 of them right, of 2
    assert micro_aupr(np.zeros((2, 2), bool), scores) == micro_f1(np.zeros((2, 2), bool), scores - 1) == 0.0


def test_accuracy_counts_several_highest_scores_by_their_expectation() -> None:
    assert accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])) == 0.5
    assert accuracy(np.arange(4), np.ones((4, 4))) == 0.25
    assert accuracy(np.array([2]), np.array([[0, 1.0, 1.0]])) == 0.5


def test_spearman_looks_at_order_alone_and_a_constant_has_none() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 10, 100])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 4, 3])) == pytest.approx(0.6)
    assert spearman(np.array([1.0, 2]), np.array([7.0, 7])) == 0.0
    assert mean_absolute_error(np.array([1.0, 2]), np.array([2.0, 4])) == 1.5
