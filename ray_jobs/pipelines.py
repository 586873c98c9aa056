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
    import pyarrow as pa
    import ray.data

CUT_BACKLOG_BYTES = 256 << 20
"""Pieces that wait or are worked on, for each CPU of the cluster."""
CUT_CPUS = 0.25
"""Logical CPUs of a task that cuts; small, so that many files that are cut leave room for the work on their pieces."""
CUT_TASK_CPUS = 0.75
"""Logical CPUs of the work on a piece: each core has room for it beside a task that cuts."""

Task = Callable[[Mapping[str, Any]], dict[str, Any]]


def run_tasks(
    task: Task, items: Sequence[Mapping[str, Any]], *, num_cpus: float = 1.0, memory_bytes: int | None = None
) -> Iterator[dict[str, Any]]:
    """Run a function on each item, one Ray Data task each; gives the reports as they come.

    Args:
        task: the function.
        items: one call each.
        num_cpus: logical CPUs of each task.
        memory_bytes: of a node's memory that each task reserves; None for none.

    Raises:
        ProtclipError: what a task raised as one.
    """

    def run(row: Mapping[str, Any]) -> dict[str, str]:
        return _report(task, row)

    if items:
        yield from _reports(_dataset(items).map(run, num_cpus=num_cpus, memory=memory_bytes))


def run_cut(
    cut: Callable[[Mapping[str, Any]], Iterator[tuple[Mapping[str, Any], bytes]]],
    task: Callable[[Mapping[str, Any], bytes], dict[str, Any]],
    items: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Cut items into pieces and run a function on each piece, one Ray Data task each; gives the reports as they come.

    Args:
        cut: one task for each item; it gives pieces, each an item with bytes, while others are at work on earlier
            ones. It waits where they fall behind.
        task: one task for each piece.
        items: what is cut.

    Raises:
        ProtclipError: what either raised as one.
    """
    import ray
    from ray.data import ExecutionResources

    def pieces(batch: Any) -> Iterator[Any]:
        for item in batch["item"]:
            try:
                for piece, data in cut(json.loads(item)):
                    yield _piece(json.dumps(piece), data)
            except ProtclipError as error:
                yield _piece(_error(error), b"")

    def run(row: Mapping[str, Any]) -> dict[str, str]:
        if "error" in json.loads(row["item"]):
            return {"report": row["item"]}
        return _report(lambda item: task(item, row["data"]), row)

    if items:
        dataset = _dataset(items)
        dataset.context.target_max_block_size = 1  # each piece is a block, and so a task, of its own
        resources: Any = ray.cluster_resources
        num_cpus = resources()["CPU"]
        options = dataset.context.execution_options
        options.resource_limits = ExecutionResources.for_limits(object_store_memory=num_cpus * CUT_BACKLOG_BYTES)
        # Unequal shares of a CPU also keep Ray Data from running both as one task.
        cut_pieces = dataset.map_batches(pieces, batch_size=1, num_cpus=CUT_CPUS)
        yield from _reports(cut_pieces.map(run, num_cpus=CUT_TASK_CPUS))


def run_actors(
    make_task: Callable[[], Task],
    items: Sequence[Mapping[str, Any]],
    *,
    num_actors: tuple[int, int],
    num_cpus: float,
    num_gpus: float,
    cut: Callable[[Mapping[str, Any]], Iterator[Mapping[str, Any]]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Run a stateful function on each item, in a pool of actors; gives the reports as they come.

    Args:
        make_task: called once in each actor, with its first item: it loads what is costly and gives the function.
        items: one call each.
        num_actors: the fewest and the most actors; between them the pool grows with the work that waits.
        num_cpus: logical CPUs of each.
        num_gpus: GPUs of each.
        cut: gives the items of the calls, from each of ``items``, while actors are at work on earlier ones. A cut that
            is run again, since its worker died, has to give the same.

    Raises:
        ProtclipError: what a task raised as one.
    """
    import ray.data

    class Actor:
        task: Task | None = None

        def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
            if "error" in json.loads(row["item"]):
                return {"report": row["item"]}
            return _report(self.run, row)

        def run(self, item: Mapping[str, Any]) -> dict[str, Any]:
            # Not made in __init__: an actor that fails there is started again and again.
            if self.task is None:
                self.task = make_task()
            return self.task(item)

    def pieces(batch: Any) -> Iterator[Any]:
        import pyarrow as pa

        for item in batch["item"]:
            try:
                for piece in cut(json.loads(item)):  # type: ignore[misc]
                    yield pa.table({"item": [json.dumps(piece)]})
            except ProtclipError as error:
                yield pa.table({"item": [_error(error)]})

    if not items:
        return
    dataset = _dataset(items)
    fewest, most = num_actors
    if cut is not None:
        dataset.context.target_max_block_size = 1  # each piece is a block, and so a call, of its own
        # It needs next to nothing, and would wait for ever where actors have taken all CPUs.
        dataset = dataset.map_batches(pieces, batch_size=1, num_cpus=0)
    else:
        most = min(most, len(items))
        fewest = min(fewest, most)
    # A pool that grows wants to see calls waiting at its actors; otherwise a call waits for the first free one.
    waiting = None if fewest < most else 1
    pool = ray.data.ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=waiting)
    actor: Any = Actor  # Ray asks for a class here, its annotation for a function
    yield from _reports(dataset.map(actor, compute=pool, num_cpus=num_cpus, num_gpus=num_gpus))


def progress(
    reports: Iterable[dict[str, Any]], *, title: str, unit: str, total: int | None, count: str | None = None
) -> Iterator[dict[str, Any]]:
    """Pass reports on, with a bar and an ETA on a terminal.

    Args:
        reports: what ``run_tasks`` and ``run_actors`` give.
        title: of the bar.
        unit: what is counted.
        total: units in all; None where that is not known.
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


def _piece(item: str, data: bytes) -> pa.Table:
    import pyarrow as pa

    return pa.table({"item": [item], "data": pa.array([data], pa.large_binary())})


def _error(error: ProtclipError) -> str:
    return json.dumps({"error": str(error), "type": type(error).__name__})


def _report(task: Task, row: Mapping[str, Any]) -> dict[str, str]:
    try:
        return {"report": json.dumps(task(json.loads(row["item"])))}
    except ProtclipError as error:
        return {"report": _error(error)}


def _reports(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    for row in dataset.iter_rows():
        report: dict[str, Any] = json.loads(row["report"])
        if "error" in report:
            raise getattr(errors, report["type"])(report["error"])
        yield report
