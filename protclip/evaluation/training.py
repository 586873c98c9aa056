"""What trainings of evaluation have in common: rows in an order of their own in each epoch, and the best epoch.

A training has a folder, from whose last checkpoint it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from protclip import distributed, files
from protclip.config import OptimizerConfig, Selection, TrainingConfig
from protclip.errors import DataError
from protclip.fields import check_number, check_types
from protclip.manifest import write_manifest
from protclip.model.record import KIND
from protclip.model.tensors import save_weights
from protclip.model.weights import load_weights
from protclip.train.checkpoints import best
from protclip.train.learner import Learner, MicroBatch
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.run import Metrics, Observer, Run, go_on
from protclip.train.state import PROGRESS, TENSORS, TrainState
from protclip.train.step import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """How a head is trained, alone or with the encoder below it."""

    hidden_size: int = 512
    """Width between the two layers."""
    epochs: int = 100
    """Passes over the training split, at most."""
    early_stop_epochs: int = 10
    """Epochs in a row without a better one on the validation split after which the training ends."""
    batch_size: int = 64
    """Rows of a step over all workers; all rows, where there are fewer."""
    micro_batches: int = 1
    """Parts in which a worker takes its rows of a step, so that the memory is that of one part."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))
    """Of the head; of the encoder with ``protein_encoder_ratio``."""
    as_authors: bool = True
    """Whether the best epoch is chosen by ``Task.select_by`` where there is one, or always by the task's metric."""
    checkpoint_every_s: float = 60.0
    """Seconds between two checkpoints within an epoch, at least; what a failure costs, at most."""

    def __post_init__(self) -> None:
        check_types("", self)
        for name in ("hidden_size", "epochs", "early_stop_epochs", "batch_size", "micro_batches"):
            check_number(name, getattr(self, name), at_least=1)


FINE_TUNING = TuneConfig(batch_size=32, optimizer=OptimizerConfig(learning_rate=1e-3, protein_encoder_ratio=0.1))
"""Of the whole encoder: at a tenth of the rate, as the paper means for what is pretrained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """Where a training runs."""

    run_dir: str
    """Its folder, one that all workers can read; a path or URL."""
    device: torch.device | str = "cpu"
    group: ProcessGroup | None = None
    """The workers, or None for one process."""
    observer: Observer | None = None
    """Of the first worker; shows the training to people."""
    preemption: Callable[[], object | None] = lambda: None
    """Tells of a node that will be taken away, or None."""


def train_rows(
    learner: Learner[MicroBatch],
    model: nn.Module,
    *,
    rows: Sequence[str],
    num_tokens_N: NDArray[np.int64],
    batch_of: Callable[[NDArray[np.int64]], MicroBatch],
    measure: Callable[[], Metrics],
    selection: Selection,
    config: TuneConfig,
    seed: int,
    place: Workplace,
) -> dict[str, float | str]:
    """Train, and put the weights of the best epoch into the model; all workers together.

    Args:
        learner: makes the gradients of the model.
        model: on the device; the same on every worker.
        rows: names of the training rows.
        num_tokens_N: of each of them.
        batch_of: places of rows → the batch that they make, on the device.
        measure: of the validation split, the same on each worker; called in evaluation mode.
        selection: of the best epoch.
        config: of the training.
        seed: of the order of rows.
        place: where it runs.

    Returns:
        Settings as an ``Outcome`` tells them.

    Raises:
        DataError: if there are too few rows, or the training has to end.
        CheckpointError: if no epoch has a finite measure.
    """
    workers, rank = distributed.world_size(place.group), distributed.rank(place.group)
    parts_of_step = workers * config.micro_batches
    size = min(config.batch_size, len(rows)) // parts_of_step * parts_of_step
    if size == 0:
        raise DataError(
            f"{len(rows):,} rows in steps of {config.batch_size} are too few for {workers} workers with "
            f"{config.micro_batches} parts each; take fewer of them."
        )
    num_batches, own = len(rows) // size, size // workers

    def parts(epoch: int, first_batch: int) -> Iterator[Part[MicroBatch]]:
        order = np.random.default_rng([seed, epoch]).permutation(len(rows))
        for batch in range(first_batch, num_batches):
            start = batch * size + rank * own
            chosen = order[start : start + own]
            num_tokens = int(num_tokens_N[chosen].sum())
            yield Part(
                batches=[batch_of(part) for part in np.split(chosen, config.micro_batches)],
                accessions=[rows[i] for i in chosen],
                num_tokens=num_tokens,
                num_places=num_tokens,
            )

    def measure_in_evaluation_mode(_: Metrics | None) -> Metrics:
        model.eval()
        return measure()

    def save_model(folder: str, weights: Mapping[str, Tensor], metrics: Metrics) -> None:
        write_manifest(folder, KIND, [*save_weights(folder, weights), TENSORS, PROGRESS], metrics=metrics)

    training = TrainingConfig(
        run_dir=place.run_dir,
        epochs=config.epochs,
        optimizer=config.optimizer,
        selection=selection,
        early_stop_epochs=config.early_stop_epochs,
        checkpoint_every_s=config.checkpoint_every_s,
        keep_checkpoints=1,
    )
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, config.optimizer),
        schedule=build_schedule(
            config.optimizer, epoch_ends=[num_batches * (epoch + 1) for epoch in range(config.epochs)]
        ),
    )
    go_on(place.run_dir, state, place.group)
    run: Run[Any] = Run(
        training,
        state,
        learner,
        parts=parts,
        measure=measure_in_evaluation_mode,
        save_model=save_model,
        observer=place.observer,
        preemption=place.preemption,
        group=place.group,
    )
    if (failure := run.run()) is not None:
        raise DataError(failure)
    load_weights(model, files.join(best(place.run_dir, selection), "model.safetensors"))
    model.eval()
    return {"best_epoch": state.best_epoch, "epochs": state.epoch, "selected_by": selection.metric}


def over_workers(
    num_rows: int, compute: Callable[[NDArray[np.int64]], Tensor], *, rows_at_once: int, group: ProcessGroup | None
) -> Tensor:
    """What is computed of each row without gradient, in order; each worker computes a stretch of the rows.

    Args:
        num_rows: more than there are workers.
        compute: places of rows → their values (B, …).
        rows_at_once: B, at most.
        group: the workers, which all have to call, or None for one process.
    """
    own = np.array_split(np.arange(num_rows), distributed.world_size(group))[distributed.rank(group)]
    with torch.no_grad():
        values = torch.cat([compute(own[i : i + rows_at_once]) for i in range(0, len(own), rows_at_once)])
    return distributed.gather_uneven_rows(values, group)
