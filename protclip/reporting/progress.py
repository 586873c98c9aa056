"""What a run tells of itself between two lines of progress: the line, and a record for RUN/steps.jsonl."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tqdm import tqdm

from protclip import files
from protclip.reporting.trackers import STEP_GROUPS
from protclip.train.state import TrainState
from protclip.train.step import StepReport

STEPS = "steps.jsonl"


class Progress:
    """Means over the steps since the last record."""

    def __init__(
        self,
        state: TrainState,
        *,
        loss: Callable[[Mapping[str, float]], float],
        total_steps: int,
        epochs: int,
        every_s: float,
    ) -> None:
        self.state, self.loss = state, loss
        self.total_steps, self.epochs, self.every_s = total_steps, epochs, every_s
        self._started, self._first_step = time.monotonic(), state.step
        self._reset()

    def _reset(self) -> None:
        self._reports: list[StepReport] = []
        self._waited = self._seconds = 0.0

    def add(self, report: StepReport, waited: float, seconds: float) -> dict[str, Any] | None:
        """Take what ``fit`` tells of a step; gives a record when there were steps for long enough."""
        self._reports.append(report)
        self._waited += waited
        self._seconds += seconds
        if self._seconds < self.every_s:
            return None
        counted = [one for one in self._reports if not one.skipped]
        terms: Counter[str] = Counter()
        for one in counted:
            terms.update(one.terms)
        means = {name: value / len(counted) for name, value in terms.items()}
        num_tokens, num_places = (
            sum(getattr(one, name) for one in self._reports) for name in ("num_tokens", "num_places")
        )
        record = {
            "step": self.state.step,
            "epoch": self.state.epoch + 1,
            **({"loss": self.loss(means), **means} if means else {}),
            # Of the last step, and of the second group, which has all of it.
            "learning_rate": self.state.optimizer.param_groups[-1]["lr"],
            "grad_norm": self._reports[-1].grad_norm,
            "tokens_per_s": num_tokens / self._seconds,
            "padding_share": 1 - num_tokens / num_places,
            "wait_share": self._waited / self._seconds,
            "memory_gb": _memory_gb(next(self.state.model.parameters()).device),
            "skipped": len(self._reports) - len(counted),
        }
        self._reset()
        return record

    def line(self, record: Mapping[str, Any]) -> str:
        """The record for people, with the time that is left."""
        speed = (self.state.step - self._first_step) / (time.monotonic() - self._started)
        terms = [name for name in record if name not in ("step", "epoch", *STEP_GROUPS)]
        values = {
            "epoch": f"{record['epoch']}/{self.epochs}",
            "step": f"{record['step']}/{self.total_steps}",
            # A term alone is the loss.
            **{name: f"{record[name]:.3f}" for name in (terms if len(terms) > 2 else terms[:1])},
            "tokens/s": f"{record['tokens_per_s']:,.0f}",
            "padding": f"{record['padding_share']:.0%}",
            "waiting": f"{record['wait_share']:.0%}",
            "memory": f"{record['memory_gb']:.1f} GB",
            **({"left out": str(len(self.state.skipped))} if self.state.skipped else {}),
            "ETA": tqdm.format_interval((self.total_steps - self.state.step) / speed),
        }
        return "  ".join(f"{name} {value}" for name, value in values.items())


class StepLog:
    """The records of RUN/steps.jsonl; those of steps that are made again after a restart are replaced."""

    def __init__(self, run_dir: str, *, first_step: int) -> None:
        self._path = files.join(run_dir, STEPS)
        before: list[str] = []
        if files.exists(self._path):
            with files.open_read(self._path) as stream:
                before = stream.read().decode().splitlines()
        self._lines = [line for line in before if json.loads(line)["step"] <= first_step]

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record."""
        self._lines.append(json.dumps(record))

    def write(self) -> None:
        """Make the file hold all of them."""
        with files.atomic_write(self._path) as stream:
            stream.writelines(f"{line}\n".encode() for line in self._lines)


def _memory_gb(device: torch.device) -> float:
    """The most that this process has used so far: of the GPU where it trains on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
