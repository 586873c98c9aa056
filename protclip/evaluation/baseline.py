"""What a score is worth nothing against: predictions without a model of proteins, and without a look at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protclip.evaluation.features import composition, required_splits
from protclip.evaluation.heads import linear_head
from protclip.evaluation.scores import all_metrics
from protclip.evaluation.task import Benchmark, Outcome, Task


def constant(task: Task, benchmark: Benchmark) -> Outcome:
    """The same for every row: the mean of the training split, or the frequency of each class or label in it."""
    (train,) = required_splits(benchmark, "train")
    test = benchmark.splits["test"]
    if task.kind == "regression":
        predictions: NDArray[np.floating] = np.full(len(test.labels), train.labels.mean())
    else:
        if task.kind == "classes":
            frequency_C = np.bincount(train.labels, minlength=len(benchmark.classes)) / len(train.labels)
        else:
            frequency_C = train.labels.mean(0)
        predictions = np.tile(frequency_C.astype(np.float32), (len(test.labels), 1))
    metrics = all_metrics(task.kind, test.labels, predictions)
    return Outcome(metrics=metrics, predictions=predictions, settings={})


def by_composition(task: Task, benchmark: Benchmark) -> Outcome:
    """The linear head on the amino-acid composition and the length of the proteins."""
    return linear_head(task, benchmark, composition(benchmark))
