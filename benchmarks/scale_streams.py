"""The training stream of 8, 64 and 512 workers at once, with a step that sleeps. CPU; some ten minutes.

    python benchmarks/scale_streams.py            8, 64 and 512 consumers
    python benchmarks/scale_streams.py --quick    8 and 32

Each consumer is one worker's stream as ``protclip pretrain`` has it, with an executor of Ray Data, and takes 64 rows a
step, which lasts as long as it sleeps. Consumers are threads in a few processes, since 512 processes do not fit;
proteins and texts are short, so that what is measured is what carries them and not the tokeniser. Then what a unit of
work costs the driver of a batch job; and the actor by which Ray Data divides a cluster among data sets, called directly
for clusters of 1, 8 and 64 machines.

Figures are processor time and memory, but for the first batch and the waiting, which are wall time: other work on the
machine lengthens them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from alone import Clock, alone
from report import Claim, write_results

from cluster.environment import prepare_environment
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.protanno.shards import SCHEMA, RowGroup
from protclip.units import Item, Report, Work
from ray_jobs.cluster import connect, tame_ray_data
from ray_jobs.pipelines import OnRay
from ray_jobs.pretrain.lanes import LanePlan, stream

GROUP_ROWS, WORKER_BATCH = 512, 64
NUM_UNITS, QUICK_NUM_UNITS = 2000, 500
CONSUMERS = ((8, 2), (64, 4), (512, 8))
"""Consumers and the processes that they are threads of."""
QUICK_CONSUMERS = ((8, 2), (32, 4))
STEPS, STEP_S = 16, 1.0
CLUSTERS = ((8, 1), (64, 8), (512, 64))
"""Streams and machines."""
MACHINE = {"CPU": 192.0, "GPU": 8.0, "memory": 1.5e12, "object_store_memory": 2e11}


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer consumers")
    quick = parser.parse_args().quick
    load = os.getloadavg()[0]
    shapes, num_units = (QUICK_CONSUMERS, QUICK_NUM_UNITS) if quick else (CONSUMERS, NUM_UNITS)
    streams, units = alone(measure_on_ray, shapes, num_units)
    coordinator = [alone(measure_coordinator, *cluster) for cluster in CLUSTERS]
    figures = {"load": load, "streams": streams, "units": units, "coordinator": coordinator}
    last = streams[-1]
    claims = [
        Claim(claim="stream_processor_ms_a_step", value=last["ms_a_step"], unit="ms"),
        Claim(claim="stream_mb_a_consumer", value=last["mb_a_consumer"], unit="MB"),
        Claim(claim="units_a_second_of_the_driver", value=1e3 / units["ms_a_unit"], unit="units/s"),
        Claim(claim="coordinator_s_an_epoch_512", value=coordinator[-1]["begin_s"], target=60.0, unit="s"),
    ]
    write_results("scale_streams", claims, figures, "\n".join(lines(figures)), quick=quick)


def measure_on_ray(shapes: Sequence[tuple[int, int]], num_units: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What needs a Ray, on one and the same."""
    _connect()
    units = measure_units(num_units)
    streams = []
    for shape in shapes:
        streams.append(measure_streams(*shape))
        print(streams[-1], file=sys.stderr, flush=True)
    return streams, units


def measure_units(number: int) -> dict[str, Any]:
    """What the driver takes for units that do nothing, of which two actors do one after the other."""
    groups = list(range(8))
    items = [
        {"unit": f"{i:05d}", "path": "s3://bucket/pairs/train-00000.parquet", "row_groups": groups}
        for i in range(number)
    ]
    work = Work(title="nothing", unit=_nothing, keeps_state=True, workers=(2, 2))
    list(OnRay()(work, items[:20]))  # libraries are imported
    clock = Clock()
    done = len(list(OnRay()(work, items)))
    assert done == number
    return {"units": number, "ms_a_unit": 1e3 * clock.s() / number, "kb_a_unit": 1e3 * clock.peak_mb() / number}


def _connect() -> None:
    """A Ray of this process, whose workers are sent what is defined here: this module has no name that they know."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # on a busy machine
    prepare_environment()
    connect(num_cpus=4)
    from ray import cloudpickle

    by_value: Any = cloudpickle.register_pickle_by_value
    for name in (__name__, Clock.__module__):
        by_value(sys.modules[name])


def _nothing(item: Item) -> Report:
    return {"unit": item["unit"]}


def measure_coordinator(streams: int, machines: int) -> dict[str, Any]:
    """Processor time of Ray Data's coordinator when the streams of an epoch begin, one after the other."""
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator
    from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import ResourceRequestPriority

    nodes = [{"Alive": True, "NodeID": f"node-{i}", "Labels": {}, "Resources": dict(MACHINE)} for i in range(machines)]
    actor: Any = coordinator._AutoscalingCoordinatorActor(
        send_resources_request=lambda *_, **__: None, get_cluster_nodes=lambda: nodes
    )
    workers: list[dict[str, float]] = [{"CPU": 4.0, "GPU": 1.0}] * streams
    actor.request_resources("train", workers, 1e6, priority=ResourceRequestPriority.HIGH)
    kinds: Any = ["CPU", "GPU", "memory", "object_store_memory"]
    clock = Clock()
    for rank in range(streams):
        actor.request_resources(f"data-{rank}", [], 1e6, request_remaining=kinds)
    begin_s = clock.s()
    actor._tick()
    reserved = actor.get_reserved_resources("data-0").values()
    return {
        "streams": streams,
        "machines": machines,
        "begin_s": begin_s,
        "tick_s": clock.s(),
        "cpus_of_a_stream": sum(node.get("CPU", 0.0) for node in reserved),
    }


def measure_streams(consumers: int, processes: int) -> dict[str, Any]:
    """Streams of so many workers at once, and what each and those that serve all of them take."""
    with tempfile.TemporaryDirectory() as folder:
        plan, text = small_plan(Path(folder), consumers), small_tokenizer()
        import ray

        own: Any = ray._private.worker._global_node
        pids = {kind: _pid_of(kind, own.get_session_dir_path()) for kind in ("gcs_server", "raylet")}
        share = consumers // processes
        remote: Any = ray.remote(num_cpus=0)
        consumer = remote(Consumers)
        actors = [consumer.remote(plan, text, range(i * share, (i + 1) * share), consumers) for i in range(processes)]
        ray.get([actor.ready.remote() for actor in actors])
        before = {kind: _cpu_s(pid) for kind, pid in pids.items()}
        began = time.monotonic()
        results = ray.get([actor.run.remote() for actor in actors])
        wall_s = time.monotonic() - began
        central = {kind: _cpu_s(pid) - before[kind] for kind, pid in pids.items()}
        for actor in actors:
            ray.kill(actor)
    steps = sum(result["steps"] for result in results)
    firsts = sorted(first for result in results for first in result["firsts"])
    cpu_s = sum(result["cpu_s"] for result in results)
    assert steps == consumers * STEPS
    return {
        "consumers": consumers,
        "processes": processes,
        "steps": steps,
        "wall_s": wall_s,
        "first_batch_s": [firsts[0], firsts[len(firsts) // 2], firsts[-1]],
        "waiting_share": sum(result["waited_s"] for result in results) / (steps * STEP_S),
        "ms_a_step": 1e3 * cpu_s / steps,
        "mb_a_consumer": sum(result["peak_mb"] for result in results) / consumers,
        "gcs_s": central["gcs_server"],
        "raylet_s": central["raylet"],
    }


class Consumers:
    """Some of the workers, as threads: each takes its batches and sleeps for a step."""

    def __init__(self, plan: LanePlan, text: str, ranks: range, num_workers: int) -> None:
        self.plan, self.text, self.ranks, self.num_workers = plan, text, ranks, num_workers

    def ready(self) -> bool:
        """The process is there, with its libraries."""
        tame_ray_data()
        return True

    def run(self) -> dict[str, Any]:
        """Until each has made its steps."""
        clock = Clock()
        self.firsts, self.waited_s, self.steps, self.lock = list[float](), 0.0, 0, threading.Lock()
        threads = [threading.Thread(target=self.consume, args=(rank,)) for rank in self.ranks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "cpu_s": clock.s(),
            "peak_mb": clock.peak_mb(),
            "steps": self.steps,
            "firsts": self.firsts,
            "waited_s": self.waited_s,
        }

    def consume(self, rank: int) -> None:
        """One worker."""
        tame_ray_data()
        tokenizer = TextTokenizer.from_json(self.text, max_tokens=64)
        began = time.monotonic()
        batches = stream(self.plan, ProteinTokenizer(), tokenizer, rank=rank, num_workers=self.num_workers)
        for number, _ in enumerate(islice(batches, STEPS)):
            waited = time.monotonic() - began
            with self.lock:
                self.steps += 1
                if number:
                    self.waited_s += waited
                else:
                    self.firsts.append(waited)
            time.sleep(STEP_S)
            began = time.monotonic()


def small_plan(folder: Path, consumers: int) -> LanePlan:
    """Short pairs for so many workers; the row groups of one file come again and again."""
    count = 16 * GROUP_ROWS
    columns: dict[str, Any] = dict.fromkeys(SCHEMA.names, [None] * count)
    columns |= {
        "accession": [f"A{i:07d}" for i in range(count)],
        "sequence": ["MKTAYIAKQRQISFVKSHFSRQ"] * count,
        "name": ["Protein of some kind"] * count,
        "ec": [[]] * count,
        "sequence_hash": list(range(count)),
        "probability": [1.0] * count,
    }
    path = str(folder / "train-00000-of-00001.parquet")
    pq.write_table(pa.table(columns, schema=SCHEMA), path, row_group_size=GROUP_ROWS)
    groups = [RowGroup(path=path, index=i, num_rows=GROUP_ROWS) for i in range(16)]
    batch = consumers * WORKER_BATCH
    repeats = -(-batch * (STEPS + 8) // count)
    return LanePlan(groups=tuple(groups * repeats), seed=0, epoch=0, num_lanes=consumers, global_batch_size=batch)


def small_tokenizer() -> str:
    """Of their texts, as JSON."""
    return TextTokenizer.train(["PROTEIN NAME: Protein of some kind."], vocabulary_size=60, max_tokens=64).json


def _pid_of(kind: str, session: str) -> int:
    """Of a process of this Ray, by its program and session."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if words[0].endswith(f"/{kind}") and session in " ".join(words):
            return int(folder.name)
    raise LookupError(f"no {kind} of {session}")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """The tables."""
    units = figures["units"]
    yield (
        f"{STEPS} steps of {STEP_S:g} s and {WORKER_BATCH} rows, 4 logical CPUs for tasks; load of the machine at the "
        f"start {figures['load']:.1f}."
    )
    yield ""
    yield (
        "| consumers (processes) | first batch, s: first, median, last | waited, of a step | processor ms a step | "
        "MB a consumer | GCS, s | raylet, s | in all, s |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for one in figures["streams"]:
        firsts = ", ".join(f"{first:.0f}" for first in one["first_batch_s"])
        yield (
            f"| {one['consumers']} ({one['processes']}) | {firsts} | {one['waiting_share']:.3f} | "
            f"{one['ms_a_step']:.1f} | {one['mb_a_consumer']:.1f} | {one['gcs_s']:.1f} | {one['raylet_s']:.1f} | "
            f"{one['wall_s']:.0f} |"
        )
    yield ""
    yield (
        f"A unit of work that does nothing, on two actors, by {units['units']:,}: {units['ms_a_unit']:.1f} ms of the "
        "driver's processor."
    )
    yield ""
    yield "Ray Data's coordinator, called directly; machines of 192 CPUs and 8 GPUs:"
    yield ""
    yield "| streams, machines | all begin, s | once again, s | CPUs of a stream |"
    yield "|---|---|---|---|"
    for one in figures["coordinator"]:
        yield (
            f"| {one['streams']}, {one['machines']} | {one['begin_s']:.3f} | {one['tick_s']:.4f} | "
            f"{one['cpus_of_a_stream']:g} |"
        )


if __name__ == "__main__":
    main()
