"""Ray Data graphs of batch work: items in, small reports out; what is large goes from task to storage.

An item and a report are JSON values, so that Arrow need not agree on a schema of them, and an error of ours arrives as
itself instead of wrapped in Ray's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from protclip import errors
from protclip.errors import ProtclipError

if TYPE_CHECKING:
    import ray.data

Task = Callable[[Mapping[str, Any]], dict[str, Any]]


def run_tasks(task: Task, items: Sequence[Mapping[str, Any]], *, num_cpus: float = 1.0) -> Iterator[dict[str, Any]]:
    """Run a function on each item, one Ray Data task each; gives the reports as they come.

    Raises:
        ProtclipError: what a task raised as one.
    """

    def run(row: Mapping[str, Any]) -> dict[str, str]:
        return _report(task, row)

    if items:
        yield from _reports(_dataset(items).map(run, num_cpus=num_cpus))


def run_actors(
    make_task: Callable[[], Task],
    items: Sequence[Mapping[str, Any]],
    *,
    num_actors: int,
    num_cpus: float,
    num_gpus: float,
) -> Iterator[dict[str, Any]]:
    """Run a stateful function on each item, in a pool of actors; gives the reports as they come.

    Args:
        make_task: called once in each actor, with its first item: it loads what is costly and gives the function.
        items: one call each.
        num_actors: actors at most; fewer where the cluster has no room for them.
        num_cpus: logical CPUs of each.
        num_gpus: GPUs of each.

    Raises:
        ProtclipError: what a task raised as one.
    """
    import ray.data

    class Actor:
        task: Task | None = None

        def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
            return _report(self.run, row)

        def run(self, item: Mapping[str, Any]) -> dict[str, Any]:
            # Not made in __init__: an actor that fails there is started again and again.
            if self.task is None:
                self.task = make_task()
            return self.task(item)

    if items:
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(num_actors, len(items))))
        actor: Any = Actor  # Ray asks for a class here, its annotation for a function
        yield from _reports(_dataset(items).map(actor, compute=pool, num_cpus=num_cpus, num_gpus=num_gpus))


def progress(
    reports: Iterable[dict[str, Any]], *, title: str, unit: str, total: int, count: str | None = None
) -> Iterator[dict[str, Any]]:
    """Pass reports on, with a bar and an ETA on a terminal.

    Args:
        reports: what ``run_tasks`` and ``run_actors`` give.
        title: of the bar.
        unit: what is counted.
        total: units in all.
        count: the key under which a report has its number of finished units; None where it stands for one.
    """
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=unit, disable=not sys.stderr.isatty()) as bar:
        for report in reports:
            bar.update(1 if count is None else report[count])
            yield report


def _dataset(items: Sequence[Mapping[str, Any]]) -> ray.data.Dataset:
    import ray.data

    return ray.data.from_items([{"item": json.dumps(item)} for item in items], override_num_blocks=len(items))


def _report(task: Task, row: Mapping[str, Any]) -> dict[str, str]:
    try:
        return {"report": json.dumps(task(json.loads(row["item"])))}
    except ProtclipError as error:
        return {"report": json.dumps({"error": str(error), "type": type(error).__name__})}


def _reports(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    for row in dataset.iter_rows():
        report: dict[str, Any] = json.loads(row["report"])
        if "error" in report:
            raise getattr(errors, report["type"])(report["error"])
        yield report
