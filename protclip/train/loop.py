"""The training loop over epochs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from torch.distributed import ProcessGroup

from protclip import distributed
from protclip.errors import DataError
from protclip.train.learner import Learner, MicroBatch
from protclip.train.state import SkippedStep, TrainState
from protclip.train.step import Part, StepReport, Wishes, train_step

NUM_NAMED = 20
"""Accessions that an error names, at most."""


class StoppedError(Exception):
    """Some worker wanted the run to end; raised on all."""


class RunEndsError(DataError):
    """The run must not go on; raised on all workers."""


class TooManySkippedError(RunEndsError):
    """Too many steps had a gradient that is not finite."""


def fit(
    state: TrainState,
    learner: Learner[MicroBatch],
    *,
    parts: Callable[[int, int], Iterator[Part[MicroBatch]]],
    after_step: Callable[[StepReport, float, float], None],
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
        learner: makes the gradients of ``state.model``.
        parts: (epoch, first batch) → what this worker has of each global batch from there to the epoch's end.
        after_step: called on every worker after each step with its report, the seconds that it waited for data, and
            the seconds since the step before it or since the epoch began.
        end_epoch: called on every worker when the state stands behind an epoch, with the mean of each term over its
            steps and the loss that they make as ``loss``; it measures, notes the epoch's cost in the state, and saves.
        wishes: this worker's, asked for once in each step.
        epochs: passes in all.
        early_stop_epochs: epochs in a row without a better one after which the run ends; None for never.
        max_grad_norm: a longer gradient is scaled down to it.
        max_skipped_steps: more steps with a gradient that is not finite end the run.
        group: the workers, or None for one process.

    Raises:
        StoppedError: when any worker wished to stop.
        TooManySkippedError: naming the rows.
    """
    network = learner.network
    while state.epoch < epochs and not _is_enough(state, early_stop_epochs):
        network.train()
        asked = ended = time.monotonic()
        for part in parts(state.epoch, state.batch):
            waited = time.monotonic() - asked
            report = train_step(state, learner, part, group=group, max_grad_norm=max_grad_norm, wishes=wishes())
            state.batch += 1
            if report.skipped:
                rows = [part.accessions[i] for i in learner.bad_rows(part.batches)]
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
            before, ended = ended, time.monotonic()
            after_step(report, waited, ended - before)
            asked = time.monotonic()
        means = {name: total / max(1, state.num_summed) for name, total in state.sums.items()}
        state.epoch, state.batch = state.epoch + 1, 0
        state.sums, state.num_summed = Counter(), 0
        network.eval()
        end_epoch({"loss": learner.loss(means) if means else math.nan, **means})


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
