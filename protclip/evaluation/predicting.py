"""Units of an evaluation: one model on one task with one seed, and the tuning of an encoder by workers together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributed import ProcessGroup

from protclip import distributed, files
from protclip.evaluation.predict import FINE_TUNED, Model, predict, tuned
from protclip.evaluation.reading import benchmark_of
from protclip.evaluation.settings import EvaluateConfig
from protclip.evaluation.task import Outcome
from protclip.evaluation.vectors import Vectors
from protclip.model.tensors import load_tensors, write_tensors
from protclip.units import Item, Report

TUNED_TENSORS, TUNED_REPORT = "tuned.safetensors", "tuned.json"
"""What workers that tuned together leave in the folder of their training; the report last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """The encoder of one model tuned for one task, by workers together."""

    config: EvaluateConfig
    item: Item
    """The unit whose protocol this is."""

    @property
    def run_dir(self) -> str:
        """Its folder."""
        run_dir: str = self.item["run_dir"]
        return run_dir

    def __call__(
        self, *, device: torch.device | str, group: ProcessGroup | None, preemption: Callable[[], object | None]
    ) -> None:
        """Tune and predict, on each worker; the first leaves the outcome where the unit finds it.

        Raises:
            DataError: if the training cannot be, or has to end.
        """
        task, benchmark = benchmark_of(self.config, self.item["task"])
        began = time.monotonic()
        outcome = tuned(
            task,
            benchmark,
            _model(self.item),
            seed=self.item["seed"],
            device=device,
            group=group,
            preemption=preemption,
        )
        if distributed.rank(group) == 0:
            write_tensors(files.join(self.run_dir, TUNED_TENSORS), {"predictions": _tensor(outcome)})
            files.write_json(files.join(self.run_dir, TUNED_REPORT), _reported(outcome, time.monotonic() - began))


def predict_unit(item: Item, *, config: EvaluateConfig, output: str) -> Report:
    """A unit: the outcomes of all protocols of a task for one model and seed."""
    task, benchmark = benchmark_of(config, item["task"])
    heads = config.heads
    if by_workers := is_tuned(item):
        heads = tuple(head for head in heads if head != FINE_TUNED)
    tensors, report = {}, {}
    began = time.monotonic()
    for protocol, outcome in predict(task, benchmark, _model(item), heads=heads, seed=item["seed"]):
        tensors[protocol] = _tensor(outcome)
        report[protocol] = _reported(outcome, time.monotonic() - began)
        began = time.monotonic()
    if by_workers:
        tensors[FINE_TUNED] = load_tensors(files.join(item["run_dir"], TUNED_TENSORS))["predictions"]
        report[FINE_TUNED] = files.read_json(files.join(item["run_dir"], TUNED_REPORT))
    write_tensors(files.join(output, item["file"]), tensors)
    return {"protocols": [[protocol, found] for protocol, found in report.items()]}  # JSON objects have no order


def is_tuned(item: Item) -> bool:
    """Whether workers have tuned the encoder for a unit."""
    return files.exists(files.join(item["run_dir"], TUNED_REPORT))


def _model(item: Item) -> Model:
    return Model(checkpoint=item["checkpoint"], vectors=Vectors(item["vectors"]), run_dir=item["run_dir"])


def _tensor(outcome: Outcome) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(outcome.predictions))


def _reported(outcome: Outcome, seconds: float) -> Report:
    return {
        "metrics": {name: float(value) for name, value in outcome.metrics.items() if np.isfinite(value)},
        "settings": dict(outcome.settings),
        "seconds": seconds,
    }
