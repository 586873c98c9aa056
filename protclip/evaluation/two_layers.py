"""Heads of two layers, trained by the core of training: on frozen features here, with their encoder in ``finetune``.

Shapes: P proteins, D their width, N rows, B rows of a batch, F features of a row, C outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protclip import layout
from protclip.evaluation.features import required_splits, standardized
from protclip.evaluation.heads import label_tensor, loss_of, probabilities
from protclip.evaluation.scores import all_metrics, selection_of
from protclip.evaluation.task import Benchmark, Kind, Outcome, Task
from protclip.evaluation.training import TuneConfig, Workplace, over_workers, train_rows
from protclip.model.pooling import at_least_fp32
from protclip.train.learner import Learner


class HeadBatch(NamedTuple):
    """Rows of a step, on the device."""

    inputs: Any
    """As the network takes them."""
    labels: Tensor
    """As ``label_tensor`` has them; numbers with mean 0 and deviation 1."""


class HeadLearner(Learner[HeadBatch]):
    """A network whose outputs (B, C) are compared with labels; workers and micro-batches have equally many rows."""

    def __init__(self, kind: Kind, network: nn.Module) -> None:
        self.network = network
        self._loss = loss_of(kind)

    def backward(self, batches: Sequence[HeadBatch]) -> dict[str, Tensor]:
        """See Learner."""
        losses = []
        for i, (inputs, labels) in enumerate(batches):
            last = i == len(batches) - 1
            with contextlib.nullcontext() if last else layout.without_averaging(self.network):
                with torch.autocast(labels.device.type, dtype=torch.bfloat16, enabled=labels.device.type == "cuda"):
                    outputs_BC = self.network(inputs)
                # A mean over equal parts of the global batch; DDP takes that over the workers.
                loss = self._loss(at_least_fp32(outputs_BC), labels) / len(batches)
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return {"error": torch.stack(losses).sum()}


def two_layers(num_features: int, config: TuneConfig, num_outputs: int, *, seed: int) -> nn.Sequential:
    """Linear → ReLU → Linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(num_features, config.hidden_size), nn.ReLU(), nn.Linear(config.hidden_size, num_outputs)
        )


def two_layer_head(
    task: Task,
    benchmark: Benchmark,
    features_PD: NDArray[np.float32],
    *,
    config: TuneConfig,
    seed: int,
    place: Workplace,
) -> Outcome:
    """A head of two layers on frozen features; the epoch that is best on the validation split predicts.

    Args:
        task: of kind regression, classes or labels.
        benchmark: its rows.
        features_PD: of the benchmark's proteins, by a frozen encoder.
        config: of the training.
        seed: of the weights and of the order of rows.
        place: where it runs.

    Raises:
        DataError: if the features do not fit the benchmark, it lacks a split, or the training has to end.
    """
    required_splits(benchmark, "train", "valid")
    rows = {name: values.to(place.device) for name, values in standardized(features_PD, benchmark).items()}
    head = two_layers(rows["train"].shape[1], config, max(1, len(benchmark.classes)), seed=seed).to(place.device)
    network = layout.replicate(head, place.group)
    return train_head(
        task,
        benchmark,
        network,
        head,
        inputs=lambda split, chosen: rows[split][torch.from_numpy(chosen)],
        num_tokens_N=np.ones(len(rows["train"]), np.int64),
        config=config,
        seed=seed,
        place=place,
    )


def train_head(
    task: Task,
    benchmark: Benchmark,
    network: nn.Module,
    model: nn.Module,
    *,
    inputs: Callable[[str, NDArray[np.int64]], Any],
    num_tokens_N: NDArray[np.int64],
    config: TuneConfig,
    seed: int,
    place: Workplace,
) -> Outcome:
    """Train a network whose outputs are of the task's kind, and predict the test split; all workers together.

    Args:
        task: of kind regression, classes or labels.
        benchmark: its rows, train and valid among them.
        network: the model, replicated.
        model: outputs (B, C) of inputs.
        inputs: (split, places of its rows) → what the model takes of them, on the device.
        num_tokens_N: of the training rows.
        config: of the training.
        seed: of the order of rows.
        place: where it runs.
    """
    train = benchmark.splits["train"]
    labels_N = label_tensor(task.kind, train)
    mean, deviation = 0.0, 1.0
    if task.kind == "regression":
        mean, deviation = float(train.labels.mean()), float(train.labels.std()) or 1.0
        labels_N = (labels_N - mean) / deviation
    labels_N = labels_N.to(place.device)

    def batch_of(chosen: NDArray[np.int64]) -> HeadBatch:
        return HeadBatch(inputs("train", chosen), labels_N[torch.from_numpy(chosen)])

    def predict(split: str) -> NDArray[Any]:
        device = torch.device(place.device)

        def outputs(chosen: NDArray[np.int64]) -> Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                return at_least_fp32(model(inputs(split, chosen)))

        num_rows = len(benchmark.splits[split].labels)
        outputs_NC = over_workers(num_rows, outputs, rows_at_once=config.batch_size, group=place.group)
        return probabilities(task.kind, outputs_NC) * deviation + mean

    settings = train_rows(
        HeadLearner(task.kind, network),
        model,
        rows=[benchmark.ids[protein] for protein in train.proteins_NK[:, 0]],
        num_tokens_N=num_tokens_N,
        batch_of=batch_of,
        measure=lambda: all_metrics(task.kind, benchmark.splits["valid"].labels, predict("valid")),
        selection=selection_of(task, as_authors=config.as_authors),
        config=config,
        seed=seed,
        place=place,
    )
    predictions = predict("test")
    metrics = all_metrics(task.kind, benchmark.splits["test"].labels, predictions)
    return Outcome(metrics=metrics, predictions=predictions, settings=settings)
