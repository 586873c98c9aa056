"""The stage ``evaluate``: checkpoints on tasks, and a report.

A prediction of one model for one task with one seed is a unit of work; a run that was interrupted goes on with those
that have no report. The manifest comes last.

WORK/models/<checkpoint>/…     references of a checkpoint, as folders of their own
WORK/inputs/…                  the proteins and texts of all tasks, each once
WORK/vectors/<model>/…         what the stage ``embed`` makes of them
WORK/trainings/<unit>/…        checkpoints of heads and encoders that are trained, to go on from them
WORK/outcomes/<unit>.json      metrics of a unit
WORK/leaks/<unit>.json         likewise, of a search for proteins that were trained on
predictions/<unit>.safetensors what the metrics were computed from; intervals and comparisons are made of it
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from protclip import files
from protclip.evaluation.card import add_to_card, check_cards
from protclip.evaluation.compare import PREDICTIONS, labels_file, predictions_file
from protclip.evaluation.leaks import find_leaks
from protclip.evaluation.predict import FINE_TUNED, TUNED, baseline, interval, needs
from protclip.evaluation.predicting import Tuning, is_tuned, predict_unit
from protclip.evaluation.reading import Tasks, benchmark_of, readable_tasks
from protclip.evaluation.references import named_models, write_references
from protclip.evaluation.report import MARKDOWN, PAGE, write_report
from protclip.evaluation.results import RESULTS, LeakResult, MissingTask, ModelResult, Results, Score, TaskResult
from protclip.evaluation.settings import EvaluateConfig
from protclip.evaluation.task import Benchmark
from protclip.evaluation.trained_on import pairs_of, training_sequences
from protclip.evaluation.vectors import make_vectors, write_inputs
from protclip.extras import require
from protclip.manifest import finish_folder, resume_folder, write_manifest
from protclip.model.tensors import load_tensors, write_tensors
from protclip.occupied import occupied
from protclip.reporting.hardware import hardware
from protclip.terminal import echo
from protclip.units import InProcess, Item, Report, Run, Work, run_units
from protclip.version import __version__

KIND = "evaluation"
REPORT_FILES = (PAGE, MARKDOWN, RESULTS)
OWN_FILES = (*REPORT_FILES, PREDICTIONS)
"""What a run leaves in its folder."""
OWN_SPLIT = "its training split"
Tune = Callable[[Tuning], None]
"""Starts the workers, and returns when they are done."""


def evaluate(config: EvaluateConfig, run: Run | None = None, *, tune: Tune | None = None) -> Results:
    """Evaluate checkpoints and write a report; a run that was killed goes on where it was.

    Args:
        config: what is evaluated, on what, and where the report goes.
        run: where units are done; None for this process.
        tune: has workers tune an encoder, one after the other; None for one worker each, where units are done.

    Raises:
        ConfigError: for an unknown task, or an output that cannot be written.
        DataError: if a file of a task that was asked for is not there, or damaged.
        CheckpointError: if a model is not there, or unfinished.
    """
    began = time.monotonic()
    for module in ("scipy", "sklearn"):
        require(module, extra="evaluate", what="evaluate")
    if config.card:
        check_cards(config.checkpoints)
    run = run or InProcess()
    tasks, missing = readable_tasks(config)
    models = named_models(config.checkpoints)
    claim = {
        "software": __version__,
        "models": [asdict(model) for model in models],
        "tasks": {task.name: dict(benchmark.files) for task, benchmark in tasks.values()},
        "settings": {
            "heads": list(config.heads),
            "seeds": config.seeds,
            "dtype": config.dtype,
            "pairs": config.pairs,
        },
    }
    with occupied(config.output):
        work = resume_folder(config.output, OWN_FILES, claim, overwrite=config.overwrite)
        return _Evaluation(config, models, tasks, missing, work, run, tune).run(began)


class _Evaluation:
    """One run, and what it leaves in the work folder."""

    def __init__(
        self,
        config: EvaluateConfig,
        models: Sequence[ModelResult],
        tasks: Tasks,
        missing: Sequence[MissingTask],
        work: str,
        run: Run,
        tune: Tune | None,
    ) -> None:
        self.config, self.tasks, self.missing, self.work, self.do = config, tasks, missing, work, run
        self.start_workers = tune
        self.folders: dict[str, str] = {model.name: model.checkpoint for model in models}
        """Of each model, by its name."""
        self.models: list[ModelResult] = []
        for number, model in enumerate(models):
            self.models.append(model)
            for reference, path in write_references(model, files.join(work, "models", str(number)), seed=0):
                self.models.append(reference)
                self.folders[reference.name] = path
        self.numbers = {model.name: number for number, model in enumerate(self.models)}
        """In the names of files."""

    def run(self, began: float) -> Results:
        self.make_vectors()
        self.tune()
        scores = tuple(self.scores(self.predict()))
        metrics = {score.task: score.metrics for score in scores}
        tasks = tuple(self.described(name, metrics.get(name, {})) for name in self.tasks)
        leaks = tuple(self.leaks())
        results = Results(
            software=__version__,
            hardware=hardware(),
            seconds=round(time.monotonic() - began, 1),
            settings=json.loads(json.dumps(asdict(self.config))),
            models=tuple(self.models),
            tasks=tasks,
            missing=tuple(self.missing),
            scores=scores,
            leaks=leaks,
        )
        write_report(self.config.output, results)
        for model in results.of_role("checkpoint") if self.config.card else ():
            add_to_card(model.checkpoint, model.name, results)
        names = [*REPORT_FILES, *(f"{PREDICTIONS}/{name}" for name in self.prediction_files())]
        write_manifest(self.config.output, KIND, names, models=[asdict(model) for model in self.models])
        finish_folder(self.config.output)
        return results

    def make_vectors(self) -> None:
        """Embed the proteins and texts of all tasks with each model."""
        inputs = files.join(self.work, "inputs")
        benchmarks = [benchmark for _, benchmark in self.tasks.values()]
        sequences = [sequence for benchmark in benchmarks for sequence in benchmark.sequences]
        texts = [text for benchmark in benchmarks for text in benchmark.texts]
        write_inputs(inputs, sequences, texts)
        wanted = {kind for task, _ in self.tasks.values() for kind in needs(task, self.config.heads)}
        for model in self.models:
            for kind in sorted(wanted):
                echo(f"evaluate: embedding with {model.name} ({kind})", err=True)
                make_vectors(
                    inputs,
                    self.folders[model.name],
                    self.vectors(model),
                    kind,
                    dtype=self.config.dtype,
                    use_gpu=self.config.use_gpu,
                    run=self.do,
                )

    def vectors(self, model: ModelResult) -> str:
        """The folder of a model's vectors."""
        return files.join(self.work, "vectors", str(self.numbers[model.name]))

    def items(self) -> list[dict[str, Any]]:
        """Of all predictions."""
        return [
            {
                "unit": (unit := f"{task}.model-{self.numbers[model.name]}.seed-{seed}"),
                "file": predictions_file(task, self.numbers[model.name], seed),
                "task": task,
                "model": model.name,
                "checkpoint": self.folders[model.name],
                "vectors": self.vectors(model),
                "run_dir": files.join(self.work, "trainings", unit),
                "seed": seed,
            }
            for task in self.tasks
            for model in self.models
            for seed in range(self.config.seeds)
        ]

    def tune(self) -> None:
        """Have workers tune what is to be tuned, where there are some."""
        if self.start_workers is None or FINE_TUNED not in self.config.heads:
            return
        for item in self.items():
            if self.tasks[item["task"]][0].kind in TUNED and not is_tuned(item):
                echo(f"evaluate: tuning {item['model']} on {item['task']}, seed {item['seed']}", err=True)
                self.start_workers(Tuning(config=self.config, item=item))

    def predict(self) -> list[Report]:
        """Make all predictions; gives the reports in the order of ``items``."""
        for task, (_, benchmark) in self.tasks.items():
            labels = torch.from_numpy(np.ascontiguousarray(benchmark.splits["test"].labels))
            write_tensors(files.join(self.config.output, PREDICTIONS, labels_file(task)), {"labels": labels})
        unit = partial(predict_unit, config=self.config, output=files.join(self.config.output, PREDICTIONS))
        work = Work(title="evaluating", unit=unit)
        return run_units(work, self.items(), files.join(self.work, "outcomes"), self.do)

    def prediction_files(self) -> list[str]:
        """Their names."""
        return sorted(files.list_folder(files.join(self.config.output, PREDICTIONS)))

    def scores(self, reports: Sequence[Report]) -> Iterator[Score]:
        """Of each task, model and protocol the mean over the seeds, with its interval."""
        found: dict[tuple[str, str, str], list[tuple[str, Mapping[str, Any]]]] = {}
        for item, report in zip(self.items(), reports, strict=True):
            for protocol, outcome in report["protocols"]:
                key = (item["task"], item["model"], protocol)
                found.setdefault(key, []).append((item["file"], outcome))
        for (name, model, protocol), outcomes in found.items():
            task, benchmark = self.tasks[name]
            predictions = [
                load_tensors(files.join(self.config.output, PREDICTIONS, file))[protocol].numpy()
                for file, _ in outcomes
            ]
            metrics = {
                metric: float(np.mean([outcome["metrics"][metric] for _, outcome in outcomes]))
                for metric in outcomes[0][1]["metrics"]
            }
            low, high = interval(task, benchmark, predictions)
            yield Score(
                task=name,
                model=model,
                protocol=protocol,
                value=metrics[task.metric],
                low=low,
                high=high,
                metrics=metrics,
                num_seeds=len(outcomes),
                seconds=round(sum(outcome["seconds"] for _, outcome in outcomes), 2),
                settings=outcomes[0][1]["settings"],
            )

    def described(self, name: str, metrics: Mapping[str, float]) -> TaskResult:
        """A task for the report; metrics are those of some model on it."""
        task, benchmark = self.tasks[name]
        value, prediction = baseline(task, benchmark, metrics)
        return TaskResult(
            name=task.name,
            title=task.title,
            kind=task.kind,
            metric=task.metric,
            note=benchmark.note,
            rows={split: len(rows.labels) for split, rows in benchmark.splits.items()},
            files=dict(benchmark.files),
            baseline=value,
            baseline_name=prediction,
            paper=dict(task.paper),
        )

    def leaks(self) -> Iterator[LeakResult]:
        """How many test proteins were trained on, by the tasks themselves and by each checkpoint."""
        checkpoints = [model for model in self.models if model.role == "checkpoint"]
        there = {model.name: pairs_of(model.checkpoint, self.config.pairs) for model in checkpoints}
        items = [
            {"unit": f"{task}.{number}", "task": task, "pairs": pairs and pairs.folder, "where": where}
            for task, (_, benchmark) in self.tasks.items()
            for number, (where, pairs) in enumerate(
                [(OWN_SPLIT, None), *((f"pairs of {name}", pairs) for name, pairs in there.items())]
            )
            if (pairs is not None if where != OWN_SPLIT else "train" in benchmark.splits)
        ]
        work = Work(title="looking for leaks", unit=partial(_leaks, config=self.config))
        reports = run_units(work, items, files.join(self.work, "leaks"), self.do)
        found = {(item["task"], item["where"]): report for item, report in zip(items, reports, strict=True)}
        for task, (_, benchmark) in self.tasks.items():
            num_proteins = len(_test_proteins(benchmark))
            for where in (OWN_SPLIT, *(f"pairs of {name}" for name in there)):
                counts = found.get((task, where))
                if where == OWN_SPLIT and counts is None:
                    continue
                yield LeakResult(
                    task=task,
                    trained_on=where,
                    proteins=num_proteins,
                    identical=None if counts is None else counts["identical"],
                    similar=None if counts is None else counts["similar"],
                )


def _leaks(item: Item, *, config: EvaluateConfig) -> Report:
    """A unit: test proteins of a task that were trained on."""
    _, benchmark = benchmark_of(config, item["task"])
    test = [benchmark.sequences[place] for place in _test_proteins(benchmark)]
    if item["pairs"] is None:
        places = np.unique(benchmark.splits["train"].proteins_NK)
        return find_leaks(test, (benchmark.sequences[place] for place in places)).counts()
    from protclip.protanno.shards import read_pairs

    return find_leaks(test, training_sequences(read_pairs(item["pairs"]))).counts()


def _test_proteins(benchmark: Benchmark) -> np.ndarray:
    """Places of the distinct proteins of the test split."""
    places: np.ndarray = np.unique(benchmark.splits["test"].proteins_NK)
    return places
