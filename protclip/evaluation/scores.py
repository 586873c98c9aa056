"""From predictions to metrics: of all rows, and of rows as they are resampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protclip.config import Selection
from protclip.evaluation.task import Kind, Metric, Task
from protclip.metrics.intervals import RowMetric
from protclip.metrics.labels import (
    accuracy,
    f1_max,
    f1_max_by_counts,
    mean_absolute_error,
    micro_aupr,
    micro_f1,
    spearman,
)
from protclip.metrics.ranking import recall, reciprocal_rank


def all_metrics(kind: Kind, labels: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """Those of a kind whose predictions are compared with labels: not retrieval, and no graph.

    Args:
        kind: of the task.
        labels: as a ``Split`` has them.
        predictions: as an ``Outcome`` has them, of the same rows.
    """
    if kind == "similarity":
        return {"spearman": spearman(labels, predictions)}
    if kind == "regression":
        return {"spearman": spearman(labels, predictions), "mae": mean_absolute_error(labels, predictions)}
    if kind == "labels":
        return {
            "f1_max": f1_max(labels, predictions),
            "micro_aupr": micro_aupr(labels, predictions),
            "micro_f1": micro_f1(labels, predictions),
        }
    assert kind in ("classes", "zero-shot"), kind
    return {"accuracy": accuracy(labels, predictions)}


def row_metric(metric: Metric, labels: NDArray[Any], predictions: NDArray[Any]) -> RowMetric:
    """A task's metric over any rows of its test split, for ``protclip.metrics.intervals``; arguments likewise."""
    if metric == "f1_max":
        of_counts = f1_max_by_counts(labels, predictions)
        return lambda rows: of_counts(np.bincount(rows, minlength=len(labels)).astype(np.float64))
    if metric in ("recall@1", "mrr"):
        values_N = recall(predictions, 1) if metric == "recall@1" else reciprocal_rank(predictions)
        return lambda rows: float(values_N[rows].mean())
    computes: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]]
    computes = {"spearman": spearman, "accuracy": accuracy, "micro_f1": micro_f1}
    compute = computes[metric]
    return lambda rows: compute(labels[rows], predictions[rows])


def selection_of(task: Task, *, as_authors: bool) -> Selection:
    """What the validation split chooses by: the metric, or what the authors choose by where that is another one."""
    if as_authors and task.select_by:
        return Selection(metric=task.select_by, mode="min")
    return Selection(metric=task.metric, mode="max")
