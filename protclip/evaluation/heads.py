"""Linear heads on frozen features: ridge regression and logistic regression.

Shapes: P proteins, D their width, N rows, F features of a row, C outputs: 1 of a regression, or classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protclip.evaluation.features import required_splits, standardized
from protclip.evaluation.scores import all_metrics, selection_of
from protclip.evaluation.task import Benchmark, Kind, Outcome, Split, Task
from protclip.train.selection import best_first, cost

PENALTIES = tuple(10.0**power for power in range(1, -6, -1))
"""Of the squared weights beside the mean loss of a row, of features of deviation 1; the strongest first."""
_MAX_ITERATIONS = 100
"""Of L-BFGS, for each penalty; each begins where the one before it ended."""
Head = Callable[[Tensor], Tensor]
"""Features of rows (N, F) → outputs (N, C)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearFit:
    """A linear head whose penalty the validation split chose."""

    predictions: Callable[[str], NDArray[Any]]
    """Of a split's rows, as an ``Outcome`` has them."""
    settings: dict[str, float | str]


def linear_head(
    task: Task,
    benchmark: Benchmark,
    features_PD: NDArray[np.float32],
    *,
    as_authors: bool = True,
    device: torch.device | str = "cpu",
) -> Outcome:
    """Ridge regression of numbers, logistic regression of classes and labels; the same each time, without a seed.

    Args:
        task: of kind regression, classes or labels.
        benchmark: its rows.
        features_PD: of the benchmark's proteins, by a frozen encoder.
        as_authors: whether the validation split chooses the penalty by ``task.select_by`` where there is one.
        device: where logistic regression computes.

    Raises:
        DataError: if the features do not fit the benchmark, or it lacks a split.
    """
    fit = fit_linear(task, benchmark, features_PD, as_authors=as_authors, device=device)
    predictions = fit.predictions("test")
    metrics = all_metrics(task.kind, benchmark.splits["test"].labels, predictions)
    return Outcome(metrics=metrics, predictions=predictions, settings=fit.settings)


def fit_linear(
    task: Task,
    benchmark: Benchmark,
    features_PD: NDArray[np.float32],
    *,
    as_authors: bool = True,
    device: torch.device | str = "cpu",
) -> LinearFit:
    """The head of ``linear_head``, for any split; arguments likewise."""
    train, valid = required_splits(benchmark, "train", "valid")
    rows = standardized(features_PD, benchmark)
    selection = selection_of(task, as_authors=as_authors)
    costs: dict[float, float] = {}
    heads: dict[float, Head] = {}
    if task.kind == "regression":
        found = _ridge(rows["train"], train)
    else:
        found = _logistic(task.kind, len(benchmark.classes), rows["train"], train, device)
    for penalty, head in found:
        heads[penalty] = head
        metrics = all_metrics(task.kind, valid.labels, probabilities(task.kind, head(rows["valid"])))
        costs[penalty] = cost(selection, metrics)
    chosen = best_first(costs)[0]
    return LinearFit(
        predictions=lambda split: probabilities(task.kind, heads[chosen](rows[split])),
        settings={"penalty": chosen, "selected_by": selection.metric},
    )


def probabilities(kind: Kind, outputs_NC: Tensor) -> NDArray[Any]:
    """A head's outputs as predictions: numbers as they are, of classes a softmax, of labels a sigmoid each."""
    if kind == "regression":
        numbers: NDArray[np.float64] = outputs_NC[:, 0].double().cpu().numpy()
        return numbers
    outputs_NC = outputs_NC.sigmoid() if kind == "labels" else outputs_NC.softmax(1)
    scores: NDArray[np.float32] = outputs_NC.float().cpu().numpy()
    return scores


def loss_of(kind: Kind) -> Callable[[Tensor, Tensor], Tensor]:
    """(outputs (N, C), labels as ``label_tensor`` has them) → the mean over the rows, and of labels over these too."""
    if kind == "regression":
        return lambda outputs_NC, labels_N: nn.functional.mse_loss(outputs_NC[:, 0], labels_N)
    return nn.functional.binary_cross_entropy_with_logits if kind == "labels" else nn.functional.cross_entropy


def label_tensor(kind: Kind, split: Split) -> Tensor:
    """A split's labels as the loss takes them: numbers as float32, classes as int64, labels as 0.0 and 1.0."""
    labels = torch.from_numpy(split.labels)
    return labels.long() if kind == "classes" else labels.float()


def _ridge(rows_NF: Tensor, train: Split) -> Iterator[tuple[float, Head]]:
    """The least mean squared error with each penalty, by one decomposition of the covariance."""
    x_NF, y_N = rows_NF.double(), torch.from_numpy(train.labels).double()
    mean = y_N.mean()
    value_F, vector_FF = torch.linalg.eigh(x_NF.T @ x_NF / len(x_NF))
    target_F = vector_FF.T @ (x_NF.T @ (y_N - mean)) / len(x_NF)
    for penalty in PENALTIES:
        weight_F = vector_FF @ (target_F / (value_F.clamp(min=0) + penalty))
        yield penalty, partial(nn.functional.linear, weight=weight_F[None].float(), bias=mean[None].float())


def _logistic(
    kind: Kind, num_outputs: int, rows_NF: Tensor, train: Split, device: torch.device | str
) -> Iterator[tuple[float, Head]]:
    """The least cross-entropy with each penalty, of classes together or of each label by itself; L-BFGS in float32."""
    x_NF, labels = rows_NF.to(device), label_tensor(kind, train).to(device)
    of_row = loss_of(kind)
    weight_CF = torch.zeros(num_outputs, x_NF.shape[1], device=device, requires_grad=True)
    bias_C = torch.zeros(num_outputs, device=device, requires_grad=True)
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            [weight_CF, bias_C], max_iter=_MAX_ITERATIONS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
        )

        def loss(penalty: float = penalty, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            mean = of_row(nn.functional.linear(x_NF, weight_CF, bias_C), labels)
            # Each label is a regression of its own, and the loss a mean over the labels.
            own = penalty / num_outputs if kind == "labels" else penalty
            total = mean + own / 2 * weight_CF.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        weight, bias = weight_CF.detach().cpu().clone(), bias_C.detach().cpu().clone()
        yield penalty, partial(nn.functional.linear, weight=weight, bias=bias)
