"""A training with a folder of its own: it goes on from its last checkpoint, and measures and saves as it goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol

from torch import Tensor
from torch.distributed import ProcessGroup

from protclip import distributed
from protclip.config import TrainingConfig
from protclip.errors import ConfigError, ProtclipError
from protclip.train.checkpoints import Writer, newest
from protclip.train.learner import Learner, MicroBatch
from protclip.train.loop import RunEndsError, StoppedError, fit
from protclip.train.selection import cost
from protclip.train.state import TrainState, load_trainer, save_trainer, take_snapshot
from protclip.train.step import Part, StepReport, Wishes

LOOK_EVERY_S = 5.0
"""Between two looks whether a node is about to be taken away."""

Metrics = Mapping[str, Any]


class Observer(Protocol):
    """Shows a run to people; the first worker alone has one."""

    def say(self, line: str) -> None:
        """Tell of something that happened."""

    def after_step(self, report: StepReport, waited: float, seconds: float) -> None:
        """Take what ``fit`` tells of a step."""

    def before_checkpoint(self) -> None:
        """Bring what was told so far to where it outlives the process."""

    def after_epoch(self, train: Metrics | None, valid: Metrics) -> None:
        """Take the measures of an epoch; ``train`` is None for those of the start."""

    def close(self) -> None:
        """The run is over."""


def go_on(run_dir: str, state: TrainState, group: ProcessGroup | None) -> str | None:
    """Put a run's last whole checkpoint into the state, on all workers; returns its folder, or None at the start."""
    # One worker looks, so that all go on from the same.
    found = newest(run_dir, tell=print) if distributed.rank(group) == 0 else None
    if (folder := distributed.from_first_worker(found, group)) is not None:
        load_trainer(folder, state)
    return folder


class Run(Generic[MicroBatch]):
    """One worker of a training."""

    def __init__(
        self,
        config: TrainingConfig,
        state: TrainState,
        learner: Learner[MicroBatch],
        *,
        parts: Callable[[int, int], Iterator[Part[MicroBatch]]],
        measure: Callable[[Metrics | None], Metrics],
        save_model: Callable[[str, Mapping[str, Tensor], Metrics], Any],
        observer: Observer | None,
        preemption: Callable[[], object | None] = lambda: None,
        group: ProcessGroup | None = None,
    ) -> None:
        """All workers have the same but for the observer.

        Args:
            config: of the run.
            state: new, or as ``go_on`` has put it.
            learner: makes the gradients of ``state.model``.
            parts: as ``fit`` takes them.
            measure: what ``fit`` tells at an epoch's end, or None at the start → named measures, computed by all
                workers together, the same on each. It may raise RunEndsError.
            save_model: (folder, weights, metrics) → makes the folder a checkpoint with its manifest, beside the
                trainer's files. It is called in a thread of the first worker.
            observer: of the first worker, or None.
            preemption: tells of a node that will be taken away, or None; asked by all workers together.
            group: the workers, or None for one process.
        """
        self.config, self.state, self.learner, self.group = config, state, learner, group
        self.parts, self.measure, self.save_model = parts, measure, save_model
        self.observer, self.preemption = observer, preemption
        self.failure: ProtclipError | None = None
        """Why the run has to end."""
        self._known: object | None = None
        self._last_saved = self._last_look = time.monotonic()
        self._first = distributed.rank(group) == 0
        if self._first:
            self._writer = Writer(config.run_dir, keep=config.keep_checkpoints, selection=config.selection)

    def run(self) -> str | None:
        """Measure the start, train, and save; returns why the run has to end, or None."""
        try:
            if self.state.step == 0:
                self._tell_epoch(None, self.measure(None))
            fit(
                self.state,
                self.learner,
                parts=self.parts,
                after_step=self._after_step,
                end_epoch=self._end_epoch,
                wishes=self._wishes,
                epochs=self.config.epochs,
                early_stop_epochs=self.config.early_stop_epochs,
                max_grad_norm=self.config.optimizer.max_grad_norm,
                max_skipped_steps=self.config.max_skipped_steps,
                group=self.group,
            )
        except StoppedError:
            pass
        except RunEndsError as error:  # the same on every worker
            self.failure = error
        if self._first:
            with self._noticing_failures():
                self._writer.wait()
                if self.observer is not None:
                    self.observer.close()
        return distributed.from_first_worker(str(self.failure) if self.failure else None, self.group)

    def _wishes(self) -> Wishes:
        now, first = time.monotonic(), self._first
        return Wishes(
            stop=self.failure is not None,
            look=first and now - self._last_look >= LOOK_EVERY_S,
            save=first and now - self._last_saved >= self.config.checkpoint_every_s and not self._writer.busy,
        )

    def _after_step(self, report: StepReport, waited: float, seconds: float) -> None:
        if report.skipped:
            rows = ", ".join(self.state.skipped[-1].accessions) or "no row alone"
            self._say(f"step {self.state.step} is left out: its gradient is not finite; not finite alone: {rows}")
        soon = report.wishes.look and self._is_preempted()
        if report.wishes.save or soon:
            self._save({})
        if not self._first:
            return
        with self._noticing_failures():
            if self.observer is not None:
                self.observer.after_step(report, waited, seconds)
            if self._writer.error is not None:
                raise self._writer.error
            if soon:
                self._writer.wait()
                self._say(f"a node will be taken away: a checkpoint is made after step {self.state.step}")

    def _is_preempted(self) -> bool:
        """Whether it is news that a node of this run will be taken away; to be asked by all workers together."""
        self._last_look = time.monotonic()
        before, self._known = self._known, self.preemption()
        return self._known is not None and self._known != before

    def _end_epoch(self, train: Metrics) -> None:
        valid = self.measure(train)
        self.state.note_validation(cost(self.config.selection, valid))
        self._tell_epoch(train, valid)
        self._save({"epoch": self.state.epoch, "train": train, "valid": valid})

    def _tell_epoch(self, train: Metrics | None, valid: Metrics) -> None:
        if self.observer is not None:
            with self._noticing_failures():
                self.observer.after_epoch(train, valid)

    def _save(self, metrics: Metrics) -> None:
        """Begin to write a checkpoint, all workers together; those of epochs have metrics."""
        snapshot = take_snapshot(self.state, keep=self._first)
        if not self._first:
            return

        def write(folder: str) -> None:
            save_trainer(folder, snapshot)
            self.save_model(folder, snapshot.weights, metrics)

        with self._noticing_failures():
            if self.observer is not None:
                self.observer.before_checkpoint()
            self._writer.start(self.state.step, write)
        self._last_saved = time.monotonic()

    @contextlib.contextmanager
    def _noticing_failures(self) -> Iterator[None]:
        """What fails on this worker alone ends the run after the next step, for all together."""
        try:
            yield
        except ProtclipError as error:
            self.failure = self.failure or error
        except OSError as error:
            self.failure = self.failure or ConfigError(
                f"run_dir={self.config.run_dir} cannot be written ({error}); mend that, then run the same command "
                "again: it goes on from the last checkpoint."
            )

    def _say(self, line: str) -> None:
        if self.observer is not None:
            self.observer.say(line)
