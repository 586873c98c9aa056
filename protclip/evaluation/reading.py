"""The tasks of an evaluation with their rows, each read once in a process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache

from protclip.errors import ConfigError, DataError, MissingDataError
from protclip.evaluation.checks import load
from protclip.evaluation.results import MissingTask
from protclip.evaluation.retrieval_task import retrieval_tasks
from protclip.evaluation.settings import EvaluateConfig
from protclip.evaluation.task import Benchmark, Task, only_test
from protclip.evaluation.tasks import TASKS

Tasks = Mapping[str, tuple[Task, Benchmark]]
"""By their names."""


def readable_tasks(config: EvaluateConfig) -> tuple[Tasks, list[MissingTask]]:
    """The tasks whose files are there, with their rows; and the others with the reason.

    Raises:
        ConfigError: for a name that no task has.
        DataError: if a file of a task that was asked for by name is not there, or one is damaged.
    """
    check_names(config)
    all_tasks = _all_tasks(config.pairs)
    by_name = config.tasks and "all" not in config.tasks
    found: dict[str, tuple[Task, Benchmark]] = {}
    missing = []
    for name in all_tasks:
        if by_name and name not in config.tasks:
            continue
        try:
            found[name] = benchmark_of(config, name)
        except MissingDataError as error:
            if by_name:
                raise
            missing.append(MissingTask(name=name, why=str(error)))
    if not found:
        raise DataError(f"{config.data}: no task has its files there; protclip evaluate --list says what is missing.")
    return found, missing


def check_names(config: EvaluateConfig) -> None:
    """Refuse names of tasks that there are not; no file is read.

    Raises:
        ConfigError: naming one, and those that there are.
    """
    there = ("all", *_all_tasks(config.pairs))
    if unknown := [name for name in config.tasks if name not in there]:
        raise ConfigError(f"--tasks {unknown[0]}: there is no such task; there are {', '.join(there)}.")


_reading = threading.Lock()
"""LMDB opens a file once in a process."""


def benchmark_of(config: EvaluateConfig, name: str) -> tuple[Task, Benchmark]:
    """A task and its rows, which a process reads once; of prompts the test split alone, unless for an ensemble."""
    with _reading:
        return _read(config.pairs, config.data, name, "ensemble" in config.heads)


@cache
def _read(pairs: str | None, data: str | None, name: str, has_ensemble: bool) -> tuple[Task, Benchmark]:
    task = _all_tasks(pairs)[name]
    benchmark = load(task, data or "")
    return task, only_test(benchmark) if task.kind == "zero-shot" and not has_ensemble else benchmark


def _all_tasks(pairs: str | None) -> dict[str, Task]:
    return {task.name: task for task in (*TASKS, *(retrieval_tasks(pairs) if pairs else ()))}
