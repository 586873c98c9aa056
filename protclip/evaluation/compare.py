"""Two reports side by side: the same rows of the same test splits, predicted by two models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from numpy.typing import NDArray

from protclip import files
from protclip.errors import DataError
from protclip.evaluation.results import Results, Score, TaskResult, read_results
from protclip.evaluation.scores import row_metric
from protclip.evaluation.task import Metric
from protclip.metrics.intervals import Difference, RowMetric, paired_bootstrap
from protclip.model.tensors import load_tensors

PREDICTIONS = "predictions"
"""Folder of a report with what its scores were computed from."""


def predictions_file(task: str, model: int, seed: int) -> str:
    """Where the predictions of a model are, by its place in the report, and the seed; a tensor for each protocol."""
    return f"{task}.model-{model}.seed-{seed}.safetensors"


def labels_file(task: str) -> str:
    """Where the labels of a task's test split are."""
    return f"{task}.labels.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two models on one task."""

    task: TaskResult
    first: Score
    second: Score
    difference: Difference
    """Of the first less the second."""


def compare(first: str, second: str) -> Iterator[Comparison]:
    """Compare the first checkpoints of two reports on the tasks that both have.

    Args:
        first: folder of a report.
        second: likewise.

    Raises:
        DataError: if one is no report, they have no task in common, or a task's rows are other ones.
    """
    reports = {folder: read_results(folder) for folder in (first, second)}
    common = [task for task in reports[first].tasks if task.name in {other.name for other in reports[second].tasks}]
    if not common:
        raise DataError(f"{first} and {second}: the two reports have no task in common.")
    for task in common:
        other = next(one for one in reports[second].tasks if one.name == task.name)
        if (task.files, task.rows, task.metric) != (other.files, other.rows, other.metric):
            raise DataError(f"{task.name}: {first} and {second} were made of other files of it, and do not compare.")
        scores = [_score(results, task.name) for results in reports.values()]
        if any(score is None for score in scores):
            continue
        one, two = cast("list[Score]", scores)
        if (one.protocol, one.num_seeds) != (two.protocol, two.num_seeds):
            raise DataError(
                f"{task.name}: {first} has {one.num_seeds} seeds of {one.protocol}, {second} {two.num_seeds} of "
                f"{two.protocol}; evaluate both alike."
            )
        metrics = [
            _row_metrics(folder, results, task, score)
            for (folder, results), score in zip(reports.items(), (one, two), strict=True)
        ]
        difference = paired_bootstrap(metrics[0], metrics[1], task.rows["test"], seed=0)
        yield Comparison(task=task, first=one, second=two, difference=difference)


def describe_comparison(first: str, second: str) -> str:
    """The comparison as a Markdown table."""
    lines = [
        f"Of {first} less {second}, on the same rows: a paired bootstrap; p of no difference, of each task alone.",
        "",
        "| task | metric | first | second | difference | 95 % interval | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in compare(first, second):
        low, high = one.difference.interval
        lines.append(
            f"| {one.task.title} | {one.task.metric} | {one.first.value:.3f} | {one.second.value:.3f} | "
            f"{one.difference.value:+.3f} | {low:+.3f} to {high:+.3f} | {one.difference.p_value:.3f} |"
        )
    return "\n".join(lines)


def _score(results: Results, task: str) -> Score | None:
    return results.best(task, results.of_role("checkpoint")[0].name)


def _row_metrics(folder: str, results: Results, task: TaskResult, score: Score) -> list[RowMetric]:
    number = [model.name for model in results.models].index(score.model)
    labels = _tensor(files.join(folder, PREDICTIONS, labels_file(task.name)), "labels")
    return [
        row_metric(
            cast("Metric", task.metric),
            labels,
            _tensor(files.join(folder, PREDICTIONS, predictions_file(task.name, number, seed)), score.protocol),
        )
        for seed in range(score.num_seeds)
    ]


def _tensor(path: str, name: str) -> NDArray[Any]:
    found: NDArray[Any] = load_tensors(path)[name].numpy()
    return found
