"""A metric over resampled rows is that of the arrays with these rows."""

from __future__ import annotations

import numpy as np
import pytest
from planted import make_task

from protclip.evaluation.scores import all_metrics, row_metric, selection_of
from protclip.evaluation.task import Kind, Metric

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("regression", "spearman"),
        ("similarity", "spearman"),
        ("classes", "accuracy"),
        ("zero-shot", "accuracy"),
        ("labels", "f1_max"),
        ("labels", "micro_f1"),
    ],
)
def test_a_row_metric_is_that_of_the_rows(kind: Kind, metric: Metric) -> None:
    generator = np.random.default_rng(0)
    predictions = generator.random((50, 4)).astype(np.float32)
    if kind in ("regression", "similarity"):
        predictions, labels = predictions[:, 0].astype(np.float64), generator.random(50)
    else:
        labels = generator.random((50, 4)) < 0.3 if kind == "labels" else generator.integers(0, 4, 50)
    of_rows = row_metric(metric, labels, predictions)
    for rows in (np.arange(50), generator.integers(0, 50, 50), generator.integers(0, 50, 50)):
        assert of_rows(rows) == pytest.approx(all_metrics(kind, labels[rows], predictions[rows])[metric])


def test_the_authors_choice_is_the_metric_unless_they_name_another() -> None:
    mae = make_task("regression", select_by="mae")
    assert (selection_of(mae, as_authors=True).metric, selection_of(mae, as_authors=True).mode) == ("mae", "min")
    for task, as_authors in ((mae, False), (make_task("regression"), True)):
        chosen = selection_of(task, as_authors=as_authors)
        assert (chosen.metric, chosen.mode) == ("spearman", "max")
