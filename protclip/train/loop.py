"""The training loop over epochs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.distributed import ProcessGroup

from protclip import distributed
from protclip.data.collate import Batch
from protclip.errors import DataError
from protclip.losses.total import with_loss
from protclip.train.state import SkippedStep, TrainState
from protclip.train.step import StepReport, Wishes, bad_rows, train_step

NUM_NAMED = 20
"""Accessions that an error names, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One worker's part of a global batch."""

    batches: Sequence[Batch]
    """Micro-batches of equal size, on the device."""
    accessions: Sequence[str]
    """Of their rows, in order."""


class StoppedError(Exception):
    """Some worker wanted the run to end; raised on all."""


class TooManySkippedError(DataError):
    """Too many steps had a gradient that is not finite; raised on all workers."""


class NothingToLearnError(DataError):
    """The contrast is exactly 0: no pair has a negative; raised on all workers."""


def fit(
    state: TrainState,
    network: nn.Module,
    *,
    parts: Callable[[int, int], Iterator[Part]],
    after_step: Callable[[StepReport, float], None],
    end_epoch: Callable[[dict[str, float]], None],
    wishes: Callable[[], Wishes],
    epochs: int,
    early_stop_epochs: int | None,
    max_grad_norm: float,
    max_skipped_steps: int,
    group: ProcessGroup | None,
) -> None:
    """Train from where the state stands to the last epoch, or until no epoch has been better for some time.

    Args:
        state: model, optimizer and place in the stream; changed in place.
        network: ``state.model``, replicated or sharded where there are several workers.
        parts: (epoch, first batch) → what this worker has of each global batch from there to the epoch's end.
        after_step: called on every worker after each step with its report, and the seconds that it waited for data.
        end_epoch: called on every worker when the state stands behind an epoch, with the mean of each term over its
            steps and their weighted sum as ``loss``; it measures, notes the epoch's cost in the state, and saves.
        wishes: this worker's, asked for once in each step.
        epochs: passes in all.
        early_stop_epochs: epochs in a row without a better one after which the run ends; None for never.
        max_grad_norm: a longer gradient is scaled down to it.
        max_skipped_steps: more steps with a gradient that is not finite end the run.
        group: the workers, or None for one process.

    Raises:
        StoppedError: when any worker wished to stop.
        TooManySkippedError: naming the rows.
        NothingToLearnError: at the end of the first epoch if its contrast was exactly 0, before it is saved.
    """
    objectives = state.model.architecture.objectives
    while state.epoch < epochs and not _is_enough(state, early_stop_epochs):
        network.train()
        asked = time.monotonic()
        for part in parts(state.epoch, state.batch):
            waited = time.monotonic() - asked
            report = train_step(state, network, part.batches, group=group, max_grad_norm=max_grad_norm, wishes=wishes())
            state.batch += 1
            if report.skipped:
                rows = [part.accessions[i] for i in bad_rows(state.model, part.batches)]
                state.skipped.append(
                    SkippedStep(
                        step=state.step, epoch=state.epoch + 1, accessions=distributed.gather_values(rows, group)
                    )
                )
                if len(state.skipped) > max_skipped_steps:
                    raise TooManySkippedError(_too_many(state.skipped))
            else:
                state.sums.update(report.terms)
                state.num_summed += 1
            if report.wishes.stop:
                raise StoppedError
            after_step(report, waited)
            asked = time.monotonic()
        means = {name: total / max(1, state.num_summed) for name, total in state.sums.items()}
        if state.epoch == 0:  # later it may be what was learned
            refuse_no_contrast(means.get("gc"), f"all {state.num_summed} steps of epoch 1")
        state.epoch, state.batch = state.epoch + 1, 0
        state.sums, state.num_summed = Counter(), 0
        network.eval()
        end_epoch(with_loss(means, objectives) if means else {"loss": math.nan})


def refuse_no_contrast(gc: float | None, where: str) -> None:
    """Refuse a contrast that compares nothing; None where there is none.

    Raises:
        NothingToLearnError: if it is exactly 0.
    """
    if gc == 0.0:
        raise NothingToLearnError(
            f"the contrast was exactly 0 in {where}: all pairs of each batch share their biotext or their sequence, so "
            "that none is a negative of another and nothing is learned; train on more varied pairs."
        )


def _is_enough(state: TrainState, early_stop_epochs: int | None) -> bool:
    return early_stop_epochs is not None and state.epoch - state.best_epoch >= early_stop_epochs


def _too_many(skipped: Sequence[SkippedStep]) -> str:
    named = list(dict.fromkeys(accession for one in skipped for accession in one.accessions))
    rows = (
        f"the rows {', '.join(named[:NUM_NAMED])}{' …' if len(named) > NUM_NAMED else ''}" if named else "no row alone"
    )
    return (
        f"{len(skipped)} steps, from {skipped[0].step} to {skipped[-1].step}, had a gradient that is not finite and "
        f"were left out, which is more than max_skipped_steps; the outputs of {rows} were not finite. Look at these "
        "pairs, or lower optimizer.learning_rate; going on with a larger max_skipped_steps is possible."
    )
