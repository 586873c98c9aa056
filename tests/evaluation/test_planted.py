"""The planted benchmarks have the signal that they claim, and shuffled ones none."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark_files import LETTERS, NUM_CLASSES, planted

from protclip.evaluation.task import Benchmark

pytestmark = pytest.mark.unit


def _shares(benchmark: Benchmark, split: str) -> np.ndarray:
    """Share of each of LETTERS in the first protein of each row."""
    places = benchmark.splits[split].proteins_NK[:, 0]
    return np.array([[benchmark.sequences[p].count(c) / len(benchmark.sequences[p]) for c in LETTERS] for p in places])


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_composition_of_a_sequence_tells_its_number_unless_shuffled(shuffled: bool) -> None:
    benchmark = planted("regression", 1, shuffled=shuffled)
    correlation = np.corrcoef(_shares(benchmark, "test")[:, 0], benchmark.splits["test"].labels)[0, 1]
    assert abs(correlation) < 0.3 if shuffled else correlation > 0.99


@pytest.mark.parametrize("kind", ["classes", "graph", "retrieval", "zero-shot"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_composition_of_a_sequence_tells_its_class_unless_shuffled(kind, shuffled: bool) -> None:  # type: ignore[no-untyped-def]
    benchmark = planted(kind, 1, shuffled=shuffled)
    found = _shares(benchmark, "test")[:, :NUM_CLASSES].argmax(axis=1)
    accuracy = np.mean(found == benchmark.splits["test"].labels)
    assert accuracy < 0.45 if shuffled else accuracy == 1


@pytest.mark.parametrize("pairs", [False, True])
def test_the_composition_of_a_sequence_tells_its_labels(pairs: bool) -> None:
    benchmark = planted("labels", 1, pairs=pairs)
    assert np.array_equal(_shares(benchmark, "test")[:, :NUM_CLASSES] > 0.1, benchmark.splits["test"].labels)


def test_the_same_seed_gives_the_same_benchmark_and_another_one_another() -> None:
    first, again, other = planted("classes", 1), planted("classes", 1), planted("classes", 2)
    assert first.sequences == again.sequences
    assert first.sequences != other.sequences
