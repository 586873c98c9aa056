"""What a pretraining shows while it runs: progress, ``steps.jsonl``, ``metrics.json``, trackers, the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from protclip import files
from protclip.config import PretrainConfig, config_dict
from protclip.reporting.progress import Progress, StepLog
from protclip.reporting.report import METRICS, write_report
from protclip.reporting.trackers import epoch_scalars, open_trackers, step_scalars
from protclip.train.state import TrainState
from protclip.train.step import StepReport


class RunLog:
    """The observer of a pretraining; of its first worker."""

    def __init__(
        self,
        config: PretrainConfig,
        state: TrainState,
        *,
        loss: Callable[[Mapping[str, float]], float],
        total_steps: int,
    ) -> None:
        """The log of a run that stands where the state does.

        Args:
            config: of the run.
            state: read after each step.
            loss: terms of the loss → the loss.
            total_steps: of the whole run.
        """
        self._config, self._state, self._total_steps = config, state, total_steps
        self._started = time.monotonic()
        self._steps = StepLog(config.run_dir, first_step=state.step)
        self._trackers = open_trackers(config.trackers, config.run_dir, config_dict(config))
        self._progress = Progress(
            state, loss=loss, total_steps=total_steps, epochs=config.epochs, every_s=config.log_every_s
        )

    def say(self, line: str) -> None:
        """See Observer."""
        print(line, flush=True)

    def after_step(self, report: StepReport, waited: float, seconds: float) -> None:
        """See Observer."""
        if (record := self._progress.add(report, waited, seconds)) is not None:
            self.say(self._progress.line(record))
            self._steps.add(record)
            self._track(step_scalars(record))

    def before_checkpoint(self) -> None:
        """See Observer."""
        self._steps.write()

    def after_epoch(self, train: Mapping[str, Any] | None, valid: Mapping[str, Any]) -> None:
        """See Observer."""
        if train is not None:
            self._say_epoch(train, valid)
        seconds = round(time.monotonic() - self._started, 1)
        entry = {
            "epoch": self._state.epoch,
            "train": train,
            "valid": valid,
            "step": self._state.step,
            "seconds": seconds,
        }
        path = files.join(self._config.run_dir, METRICS)
        history = files.read_json(path)["history"] if files.exists(path) else []
        # Entries of epochs that a restart repeats are replaced.
        history = [*(before for before in history if before["epoch"] < entry["epoch"]), entry]
        so_far = {"selection": asdict(self._config.selection), "total_steps": self._total_steps, "history": history}
        files.write_json(path, so_far)
        self._track(epoch_scalars(entry))
        if train is not None:
            self._steps.write()
            write_report(self._config.run_dir)

    def close(self) -> None:
        """See Observer."""
        self._steps.write()
        for tracker in self._trackers:
            tracker.close()
        write_report(self._config.run_dir)

    def _say_epoch(self, train: Mapping[str, float], valid: Mapping[str, Any]) -> None:
        recalls = ", ".join(f"{valid[way]['recall@10']:.3f} {way}" for way in ("text_to_protein", "protein_to_text"))
        self.say(
            f"epoch {self._state.epoch}/{self._config.epochs} done: training loss {_spelled(train)}, validation loss "
            f"{_spelled({name: valid[name] for name in train})}, recall@10 of {valid['num_pairs']} pairs "
            f"({valid['num_proteins']} proteins, {valid['num_texts']} texts): {recalls}, "
            f"{valid['chance']['recall@10']:.3f} by chance"
        )

    def _track(self, values: dict[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(values, self._state.step)


def _spelled(losses: Mapping[str, float]) -> str:
    """``2.345``, or with the terms where there are several: ``2.345 (gc 1.200, mlm 2.800)``."""
    total, *terms = (f"{name} {loss:.3f}" for name, loss in losses.items())
    total = total.removeprefix("loss ")
    return f"{total} ({', '.join(terms)})" if len(terms) > 1 else total
