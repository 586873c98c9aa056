"""Classes by a few examples of each (ProtST: Xu et al. 2023, arXiv:2301.12040, section 4.4).

``few_shots`` makes the benchmark; any head predicts it, and beside it stand methods that fit nothing.
Shapes: P proteins, D their width, N rows, S examples, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protclip.evaluation.features import checked, required_splits, unit
from protclip.evaluation.scores import all_metrics
from protclip.evaluation.task import Benchmark, Outcome, Split, Task

Method = Literal["neighbours", "prototypes"]
SHOTS = (1, 2, 4, 8, 16)


def few_shots(benchmark: Benchmark, shots: int, *, seed: int) -> Benchmark:
    """A benchmark of classes with so many training rows of each at most; of fewer shots they are among those of more.

    Raises:
        DataError: if the benchmark has nothing to train on.
    """
    (train,) = required_splits(benchmark, "train")
    order = np.random.default_rng(seed).permutation(len(train.labels))
    sorted_order = order[np.argsort(train.labels[order], kind="stable")]
    labels_N = train.labels[sorted_order]
    place_N = np.arange(len(labels_N)) - np.searchsorted(labels_N, labels_N)  # within its class
    rows = np.sort(sorted_order[place_N < shots])
    few = Split(proteins_NK=train.proteins_NK[rows], labels=train.labels[rows])
    return replace(benchmark, splits={**benchmark.splits, "train": few})


def nonparametric(
    task: Task, benchmark: Benchmark, features_PD: NDArray[np.float32], *, method: Method = "neighbours"
) -> Outcome:
    """Classes by likeness to the examples of the training split, whose features are of unit length.

    neighbours: the sum over a class's examples of exp(-|x - example|²), as ProtST has it. prototypes: exp(-|x - mean|²)
    of the mean of its examples.

    Args:
        task: of kind classes.
        benchmark: such as ``few_shots`` makes.
        features_PD: of the benchmark's proteins.
        method: how it predicts.

    Raises:
        DataError: if the features do not fit the benchmark, or it has nothing to learn from.
    """
    (train,) = required_splits(benchmark, "train")
    test = benchmark.splits["test"]
    unit_PD = unit(checked(features_PD, benchmark))
    example_SD = unit_PD[train.proteins_NK[:, 0]]
    is_of_SC = (train.labels[:, None] == np.arange(len(benchmark.classes))).astype(np.float32)
    if method == "prototypes":
        has_examples_C = is_of_SC.any(0)
        example_SD = (is_of_SC.T @ example_SD)[has_examples_C] / is_of_SC.sum(0)[has_examples_C, None]
        is_of_SC = np.eye(len(benchmark.classes), dtype=np.float32)[has_examples_C]
    test_ND = unit_PD[test.proteins_NK[:, 0]]
    distance_NS = 1 + (example_SD**2).sum(1) - 2 * test_ND @ example_SD.T
    likeness_NC = np.exp(-distance_NS) @ is_of_SC
    predictions = (likeness_NC / likeness_NC.sum(1, keepdims=True)).astype(np.float32)
    metrics = all_metrics(task.kind, test.labels, predictions)
    return Outcome(metrics=metrics, predictions=predictions, settings={"method": method, "examples": len(train.labels)})
