"""Predictions against labels: numbers, classes, and sets of labels.

What scikit-learn and scipy have is theirs; both come with the extra ``evaluate``. Shapes: N rows, C classes or labels,
E = N · C scores in the order of the thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5
"""A label of this probability or more is predicted, where a metric looks at one threshold."""


def spearman(labels_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    """Spearman's ρ; 0 where one side is constant, and so orders nothing."""
    from scipy.stats import spearmanr

    if any(len(np.unique(values)) < 2 for values in (labels_N, predicted_N)):
        return 0.0
    return float(spearmanr(labels_N, predicted_N).statistic)


def mean_absolute_error(labels_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    """In the unit of the labels."""
    return float(np.abs(labels_N - predicted_N).mean())


def accuracy(labels_N: NDArray[np.int64], scores_NC: NDArray[Any]) -> float:
    """Share of rows whose class has the highest score; of several highest each counts as likely as any other."""
    highest_NC = scores_NC == scores_NC.max(1, keepdims=True)
    right_N = np.take_along_axis(highest_NC, labels_N[:, None], 1)[:, 0]
    return float((right_N / highest_NC.sum(1)).mean())


def micro_f1(labels_NC: NDArray[np.bool_], scores_NC: NDArray[Any]) -> float:
    """F1 over all rows and labels together, of the labels whose probability is THRESHOLD or more."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels_NC, scores_NC >= THRESHOLD, average="micro", zero_division=0.0))


def micro_aupr(labels_NC: NDArray[np.bool_], scores_NC: NDArray[Any]) -> float:
    """Area under precision and recall over all rows and labels together, as average precision; 0 without labels."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels_NC.ravel(), scores_NC.ravel())) if labels_NC.any() else 0.0


def f1_max(labels_NC: NDArray[np.bool_], scores_NC: NDArray[Any]) -> float:
    """Protein-centric F1-max: the best, over all thresholds, of the F1 of mean precision and mean recall.

    Precision is the mean over the rows that have a prediction at the threshold, recall that over all rows
    (Radivojac et al. 2013, doi:10.1038/nmeth.2340). A row without labels has recall 0, as in TorchDrug, by which
    published figures of EC and GO were computed.
    """
    return f1_max_by_counts(labels_NC, scores_NC)(np.ones(len(labels_NC)))


def f1_max_by_counts(labels_NC: NDArray[np.bool_], scores_NC: NDArray[Any]) -> Callable[[NDArray[np.float64]], float]:
    """F1-max as a function of how often each row is there, (N,): for resampling, since the scores are sorted once."""
    order_NC = np.argsort(-scores_NC, axis=1, kind="stable")
    found_NC = np.cumsum(np.take_along_axis(labels_NC, order_NC, 1), axis=1)
    precision_NC = found_NC / np.arange(1, labels_NC.shape[1] + 1)
    recall_NC = found_NC / np.maximum(1, found_NC[:, -1:])
    sorted_NC = np.take_along_axis(scores_NC, order_NC, 1)
    order_E = np.argsort(-sorted_NC.ravel(), kind="stable")
    row_E, place_E = np.divmod(order_E, labels_NC.shape[1])
    # By how much each next label that a row predicts moves the row's precision and recall.
    gained_E, recalled_E = (
        np.diff(values_NC, axis=1, prepend=0.0).ravel()[order_E] for values_NC in (precision_NC, recall_NC)
    )
    begins_E = place_E == 0
    score_E = sorted_NC.ravel()[order_E]
    ends = np.flatnonzero(np.append(score_E[1:] != score_E[:-1], True))

    def of_counts(count_N: NDArray[np.float64]) -> float:
        count_E = count_N[row_E]
        precision, recall, predicting = (
            np.cumsum(count_E * values_E)[ends] for values_E in (gained_E, recalled_E, begins_E)
        )
        precision, recall = precision / np.maximum(1, predicting), recall / count_N.sum()
        return float((2 * precision * recall / np.maximum(1e-12, precision + recall)).max())

    return of_counts
