"""``OnRay``: units of work as Ray Data graphs; what is large goes from unit to storage, only reports come back.

Items and reports are JSON texts to Ray, so that Arrow need not agree on a schema of them, and an error of ours arrives
as itself instead of wrapped in Ray's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster import environment
from protclip import errors, files
from protclip.errors import ConfigError, ProtclipError
from protclip.extras import require
from protclip.units import InProcess, Item, Report, Run, Unit, Work
from ray_jobs.cluster import connect

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

SMALL_BYTES = 16 << 20
"""Input, as it lies on the disk, that this machine's cores are done with in about the time that Ray takes to start."""
CUT_BACKLOG_BYTES = 256 << 20
"""Of items from a cut that wait or are worked on, for each CPU of the cluster."""
CUT_CPUS = 0.25
"""Logical CPUs of a task that cuts; small, so that many files that are cut leave room for the units."""
CUT_TASK_CPUS = 0.75
"""Logical CPUs of a unit from a cut: each core has room for it beside a task that cuts."""


def suited_run(num_bytes: int, *, what: str) -> Run:
    """Where units of a job are done: a small one in this process, unless a Ray is there or RAY_ADDRESS names one.

    Args:
        num_bytes: of the input, as it lies on the disk.
        what: the job, for the message.

    Raises:
        ConfigError: if Ray is needed and not installed.
    """
    ray = sys.modules.get("ray")
    is_there = environment.address() is not None or (ray is not None and ray.is_initialized())
    if num_bytes <= SMALL_BYTES and not is_there:
        return InProcess()
    require("ray", extra="ray", what=what)
    return OnRay()


class OnRay:
    """Units on the cluster of RAY_ADDRESS, or on a Ray that is started here when there is the first to do.

    Units without state are tasks, of one CPU each; those with one are actors, of one CPU each and the GPUs that the
    work says.
    """

    threads = 1

    def room(self, num_gpus: int) -> int:
        """As many as the cluster has CPUs, or GPUs."""
        connect()
        return _available(num_gpus)[1]

    def __call__(self, work: Work, items: Sequence[Item]) -> Iterator[Report]:
        """Do a unit for each item, or for each that ``work.cut`` makes of them; gives the reports as they come.

        Raises:
            ProtclipError: what a unit or the cut raised as one.
            ConfigError: if no node has the memory that a unit needs, or there is no GPU where one is asked for.
        """
        if not items:
            return
        connect()
        dataset = _dataset(items)
        if work.cut is not None:
            dataset = _cut(dataset, work)
        if work.keeps_state:
            done = dataset.map(_actor(work.unit), num_cpus=1.0, num_gpus=work.num_gpus, compute=_pool(work, len(items)))
        else:
            _check_memory(work)
            num_cpus = 1.0 if work.cut is None else CUT_TASK_CPUS
            done = dataset.map(_task(work.unit), num_cpus=num_cpus, memory=work.memory_bytes)
        for row in done.iter_rows():
            report: Report = json.loads(row["report"])
            if "error" in report:
                raise getattr(errors, report["type"])(report["error"])
            yield report


def largest_memory() -> float:
    """Bytes that the node with the most has for tasks."""
    import ray

    nodes: Any = ray.nodes
    return max(float(node["Resources"].get("memory", 0)) for node in nodes() if node["Alive"])


def _dataset(items: Sequence[Item]) -> ray.data.Dataset:
    import ray.data

    return ray.data.from_items([{"item": json.dumps(item)} for item in items], override_num_blocks=len(items))


def _cut(dataset: ray.data.Dataset, work: Work) -> ray.data.Dataset:
    """What the items are cut into. It waits where the work on earlier ones falls behind."""
    import ray
    from ray.data import ExecutionResources

    cut = work.cut
    assert cut is not None

    def cut_batch(batch: Any) -> Iterator[Any]:
        for whole in batch["item"]:
            try:
                for item in cut(json.loads(whole)):
                    yield _row(item)
            except Exception as error:
                yield _row(_error(error))

    dataset.context.target_max_block_size = 1  # each item is a block of Ray Data, and so a task, of its own
    if work.keeps_state:
        # It needs next to nothing, and would wait for ever where actors have taken all CPUs.
        return dataset.map_batches(cut_batch, batch_size=1, num_cpus=0)
    resources: Any = ray.cluster_resources
    limit = resources()["CPU"] * CUT_BACKLOG_BYTES
    dataset.context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=limit)
    # Unequal shares of a CPU also keep Ray Data from running both as one task.
    return dataset.map_batches(cut_batch, batch_size=1, num_cpus=CUT_CPUS)


def _pool(work: Work, num_items: int) -> ray.data.ActorPoolStrategy:
    import ray.data

    fewest, most = work.workers or _available(work.num_gpus)
    if work.cut is None:
        most = min(most, num_items)
        fewest = min(fewest, most)
    # A pool that grows wants to see calls waiting at its actors; otherwise a call waits for the first free one.
    waiting = None if fewest < most else 1
    return ray.data.ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=waiting)


def _available(num_gpus: int) -> tuple[int, int]:
    """The fewest and the most actors: up to as many as the connected cluster has CPUs, or GPUs."""
    import ray

    resources: Any = ray.cluster_resources
    number = int(resources().get("GPU" if num_gpus else "CPU", 0))
    if number < 1:
        raise ConfigError("--use-gpu: the cluster has no GPU; leave it out, or join a cluster that has (RAY_ADDRESS).")
    return 1, number


def _check_memory(work: Work) -> None:
    if work.memory_bytes is not None and work.memory_bytes > (largest := largest_memory()):
        raise ConfigError(
            f"{work.title}: a subindex needs {work.memory_bytes / 2**30:.1f} GiB, and the largest node has "
            f"{largest / 2**30:.1f}; choose a smaller --shard-rows."
        )


def _task(unit: Unit) -> Any:
    def task(row: Mapping[str, Any]) -> dict[str, str]:
        return _report(unit, row)

    return task


def _actor(unit: Unit) -> Any:
    class Actor:
        """Each has a copy of the unit, which loads its state with the first item: an actor that fails while it is made
        is started again and again."""

        def __init__(self) -> None:
            self.unit = unit

        def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
            return _report(self.unit, row)

    return Actor


def _report(unit: Unit, row: Mapping[str, Any]) -> dict[str, str]:
    item = json.loads(row["item"])
    if "error" in item:  # of the cut
        return {"report": row["item"]}
    if row.get("data") is not None:
        item["data"] = row["data"]
    try:
        return {"report": json.dumps(unit(item))}
    except Exception as error:
        return {"report": json.dumps(_error(error))}


def _row(item: Item) -> pa.Table:
    import pyarrow as pa

    told = json.dumps({name: value for name, value in item.items() if not isinstance(value, bytes)})
    return pa.table({"item": [told], "data": pa.array([item.get("data")], pa.large_binary())})


def _error(error: Exception) -> dict[str, str]:
    """An error of ours or of an object store, as an item; others are raised again."""
    if files.is_store_error(error):
        error = ConfigError(f"the object store does not answer as it should ({error}).")
    if not isinstance(error, ProtclipError):
        raise error
    return {"error": str(error), "type": type(error).__name__}
