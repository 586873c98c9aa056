"""``protclip evaluate``: how good checkpoints are, in this process or on Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from protclip import files
from protclip.checkpoint_names import is_name
from protclip.commands.options import config_options
from protclip.config import WorkersConfig
from protclip.evaluation.evaluate import Tune, evaluate
from protclip.evaluation.settings import EvaluateConfig
from protclip.extras import require
from protclip.fields import configured
from protclip.terminal import echo
from protclip.units import Run
from ray_jobs.cluster import end_with_ray, resolve_input, resolve_output
from ray_jobs.pipelines import OnRay, suited_run
from ray_jobs.workers import make_room


def _instead(show: Callable[[Any], str]) -> Callable[[click.Context, click.Parameter, Any], None]:
    """An option that shows something in place of an evaluation."""

    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            echo(show(value))
            context.exit()

    return callback


def _list(folder: str) -> str:
    from protclip.evaluation.checks import listing

    lines = []
    for one in listing(files.absolute(folder)):
        task = one.task
        lines.append(f"{task.name}: {task.title}; {task.metric}")
        if one.state == "ready":
            rows = ", ".join(f"{split} {number:,}" for split, number in one.rows.items())
            shortest, median, longest = one.lengths
            lines.append(
                f"  ready: {rows} rows of {one.num_proteins:,} proteins of {shortest:,} to {longest:,} residues, half "
                f"of them up to {median:,}; {one.sha256[:12]}…"
            )
            lines += [f"  note: {one.note}"] if one.note else []
        else:
            lines.append(f"  {one.state}: {one.problem}")
    return "\n".join(lines)


def _compare(folders: tuple[str, str]) -> str:
    from protclip.evaluation.compare import describe_comparison

    first, second = map(files.absolute, folders)
    return describe_comparison(first, second)


@click.command()
@config_options(EvaluateConfig, argument="checkpoints", metavar="CHECKPOINT...")
@click.option(
    "--list",
    metavar="DIR",
    is_eager=True,
    expose_value=False,
    callback=_instead(_list),
    help="Show all tasks, which of them a data folder can run, and what is missing; evaluate nothing.",
)
@click.option(
    "--compare",
    metavar="A B",
    nargs=2,
    is_eager=True,
    expose_value=False,
    callback=_instead(_compare),
    help="Compare the first checkpoints of two reports, row by row of the test splits; evaluate nothing.",
)
def main(**values: Any) -> None:
    """Evaluate models on benchmarks, and write a report.

    CHECKPOINT is a folder such as runs/tiny/best, a name such as published, or a URL; several stand side by side. Each
    is held against its encoders before the pretraining, against random weights of its shape, and against a prediction
    that sees no model. The report says how many test proteins a model was trained on.

    After an interruption, give the same command again, and it goes on where it was.

    \b
        protclip evaluate --list benchmarks
        protclip evaluate runs/tiny/best --data benchmarks --output report
        protclip evaluate runs/a/best runs/b/best --pairs pairs --tasks retrieval --output report
        protclip evaluate --compare report-a report-b
    """
    end_with_ray()
    run_evaluate(with_paths(configured(EvaluateConfig, values)))


def with_paths(config: EvaluateConfig) -> EvaluateConfig:
    """The same with paths that mean the same in every folder."""
    return dataclasses.replace(
        config,
        checkpoints=tuple(one if is_name(one) else resolve_input(one) for one in config.checkpoints),
        data=None if config.data is None else resolve_input(config.data),
        pairs=None if config.pairs is None else resolve_input(config.pairs),
        output=resolve_output(config.output),
    )


def train_workers(config: EvaluateConfig) -> WorkersConfig | None:
    """The workers that tune encoders together; None where each tuning is a unit like others."""
    if not config.use_gpu and config.workers == 1:
        return None
    return WorkersConfig(num=config.workers, use_gpu=config.use_gpu)


def run_evaluate(config: EvaluateConfig) -> None:
    """Evaluate, here or on Ray, and say what came of it; of a config with absolute paths."""
    run: Run
    tune: Tune | None = None
    if (workers := train_workers(config)) is not None:
        require("ray", extra="ray", what=f"evaluate --{'use-gpu' if config.use_gpu else 'workers'}")
        from ray_jobs.evaluate.worker import tune_together

        make_room(workers)  # before anything else starts a Ray that has too little for them
        run, tune = OnRay(), partial(tune_together, workers=workers)
    else:
        run = suited_run(0, what="evaluate")
    results = evaluate(config, run, tune=tune)
    first = results.of_role("checkpoint")[0].name
    for task in results.tasks:
        if (score := results.best(task.name, first)) is not None:
            echo(f"{task.title}: {score.value:.3f} ({score.low:.3f} to {score.high:.3f})")
    echo(f"evaluate: {len(results.tasks)} tasks, {results.seconds:.0f} s → {files.join(config.output, 'report.html')}")
