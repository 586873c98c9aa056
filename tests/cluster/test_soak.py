"""Half an hour of training, embedding, indexing and serving, with kills: nothing stays or is lost."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import search_clients
from kills import names_below
from running import wait_until
from several_hosts import (
    PROTCLIP,
    Job,
    deploy,
    hosts_with,
    living_nodes,
    make_pairs,
    skip_where_impossible,
    start_again,
)
from tiny_model import random_sequences, tiny_model
from trained_runs import SETTINGS, assert_same_run, num_rows_logged

from benchmarks.report import Claim, write_results
from cluster.hosts import LocalCluster, Settings
from protclip import files

pytestmark = pytest.mark.prove

FULL_MINUTES = 30
MINUTES = int(os.environ.get("PROTCLIP_PROVE_MINUTES", FULL_MINUTES))
NAME = f"s{os.getpid() % 10**7}"
SEED = 0
TRAINING = (*SETTINGS, "epochs=1", "workers.num=3", "workers.resources={CPU: 1.1}", "max_failures=20")
"""About 60 steps by three workers, one on each host."""
NUM_PROTEINS, PART_ROWS = 12_000, 100
NUM_CLIENTS = 2
VICTIMS = {"worker": "ray::RayTrainWorker", "actor": "ray::MapWorker", "replica": "ray::ServeReplica"}
CALLS = """
import json, sys
from collections import Counter
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_pb2, gcs_service_pb2 as messages, gcs_service_pb2_grpc as services
with init_grpc_channel(sys.argv[1], [("grpc.enable_http_proxy", 0)]) as channel:
    actors = services.ActorInfoGcsServiceStub(channel).GetAllActorInfo(messages.GetAllActorInfoRequest(), timeout=60)
    groups = services.PlacementGroupInfoGcsServiceStub(channel).GetAllPlacementGroup(
        messages.GetAllPlacementGroupRequest(), timeout=60)
alive = [one for one in actors.actor_table_data if one.state != gcs_pb2.ActorTableData.DEAD]
kept = [one for one in groups.placement_group_table_data if one.state != gcs_pb2.PlacementGroupTableData.REMOVED]
print(json.dumps({"actors": Counter(one.class_name for one in alive), "placement groups": len(kept)}))
"""
PORTS = """
import psutil
print(len({one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN}))
"""


@dataclass(frozen=True)
class Memory:
    """Of a process, between two cycles."""

    minutes: float
    mb: float
    num_files: int
    num_threads: int


class Watch:
    """What a cluster holds whenever nothing is at work on it but the server."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._start = time.monotonic()
        self.memory: dict[tuple[str, str, int], list[Memory]] = defaultdict(list)
        """By host, name and id of the process."""
        self.left: list[dict[str, object]] = []
        """What there was after each cycle, by kind."""

    def look(self) -> None:
        """Take down what is there, when what ends has ended."""
        deadline = time.monotonic() + 60
        while (left := self._left()) != (self.left or [left])[0] and time.monotonic() < deadline:
            time.sleep(3)
        self.left.append(left)
        print(left, flush=True)
        minutes = (time.monotonic() - self._start) / 60
        for host in self._cluster.hosts:
            for process in processes(self._cluster, host):
                with psutil.Process.oneshot(process):
                    one = Memory(
                        minutes, process.memory_full_info().uss / 1e6, process.num_fds(), process.num_threads()
                    )
                self.memory[host, title(process), process.pid].append(one)

    def _left(self) -> dict[str, object]:
        cluster = self._cluster
        asked = cluster.run("h1", [sys.executable, "-c", CALLS, cluster.address], capture_output=True, check=True)
        return {
            **json.loads(asked.stdout),
            "processes": {
                host: dict(sorted(Counter(title(one) for one in processes(cluster, host)).items()))
                for host in cluster.hosts
            },
            "ports": {
                host: int(cluster.run(host, [sys.executable, "-c", PORTS], capture_output=True, check=True).stdout)
                for host in cluster.hosts
            },
            "shared memory": sorted(os.listdir("/dev/shm")),
            "temporary": sorted(os.listdir(cluster.folder / "tmp")),
            "of ours in /tmp": sorted(name for name in os.listdir("/tmp") if re.match("protclip|ray", name)),
        }


def processes(cluster: LocalCluster, host: str) -> list[psutil.Process]:
    """Of a host, without the workers that Ray keeps for the next job."""
    found = []
    for pid in cluster.processes(host):
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and title(process) != "ray::IDLE":
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def title(process: psutil.Process) -> str:
    """What a process is: Ray's workers call themselves by what they do, other Python processes by their script."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return re.split(r"[ .#]", words[0])[0]  # without the method that runs
    scripts = [word for word in words if word.endswith(".py")]
    return os.path.basename((scripts or words)[0])


class Soak:
    """The cycles: a training, an embedding, an index and its exchange, each disturbed."""

    def __init__(self, cluster: LocalCluster, folder: Path, *, pairs: str, fasta: str, calm: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._inputs = {"pairs": pairs, "fasta": fasta}
        self._calm = calm
        self._rng = random.Random(SEED)
        self.log: list[str] = []
        self.disturbed: Counter[str] = Counter()

    def cycle(self, number: int) -> None:
        """One of them; what it makes is compared, and then removed."""
        begun = time.monotonic()
        at = self._folder / str(number)
        at.mkdir()
        run = at / "run"
        training = ["pretrain", "tiny_cpu", f"data.pairs={self._inputs['pairs']}", f"run_dir={run}", *TRAINING]
        self._disturb(f"train-{number}", training, lambda: num_rows_logged(run), 5, "worker")
        assert_same_run(run, self._calm / "run")
        embeddings = at / "embeddings"
        embed = embedding(self._inputs["fasta"], str(self._folder / "checkpoint"), str(embeddings))

        def num_parts() -> int:
            return sum(name.startswith(".work/") and name.endswith(".json") for name in names_below(str(embeddings)))

        self._disturb(f"embed-{number}", [*embed, "--workers", "3"], num_parts, 3, "actor")
        assert checksums(embeddings) == checksums(self._calm / "embeddings")
        index = self._folder / f"index-{number}"
        job = Job(self._cluster, f"index-{number}", *PROTCLIP, *indexing(embeddings, index), said=at / "index.txt")
        job.succeed(300)
        assert checksums(index) == checksums(self._calm / "index")
        deploy(self._cluster, self._folder, str(index))
        host = self._rng.choice(sorted(self._cluster.hosts)[1:])  # c1 comes first
        self._kill(host, VICTIMS["replica"])
        self.disturbed["replica"] += 1
        wait_until(lambda: self._serve(host), "the replica does not come back")
        shutil.rmtree(at)
        if number > 1:
            shutil.rmtree(self._folder / f"index-{number - 2}")  # the one before may still be open somewhere
        self.log.append(f"{number}: {time.monotonic() - begun:.0f} s")

    def _serve(self, host: str) -> bool:
        return host in hosts_with(self._cluster, VICTIMS["replica"])

    def _disturb(self, name: str, arguments: list[str], progress: Callable[[], int], most: int, worker: str) -> None:
        """Submit a job, do away with something of it, and see it to its end."""
        said = self._folder / f"{name}.txt"
        job = Job(self._cluster, name, *PROTCLIP, *arguments, said=said)
        job.wait_until(lambda: progress() > 1, f"{name}: no progress", 300)
        wanted = progress() + self._rng.randint(1, most)
        job.wait_until(lambda: progress() >= wanted, f"{name}: no further progress", 300)
        how = self._rng.choice(["driver", worker, worker, "host"])
        host = self._rng.choice(["h2", "h3"])
        self.disturbed[how] += 1
        print(f"{name}: {how} {host} at {progress()}", flush=True)
        if how == "driver":
            for process in processes(self._cluster, "h1"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if str(self._folder) in " ".join(words := process.cmdline()) and "submit" not in words:
                        process.kill()
            assert job.process.wait(120) != 0
            job = Job(self._cluster, f"{name}-again", *PROTCLIP, *arguments, said=said)
        elif how == "host":
            self._cluster.kill(host)
            wait_until(lambda: host not in living_nodes(self._cluster), f"{host} is not missed")
            start_again(self._cluster, host)
        else:
            self._kill(host, VICTIMS[worker])
        job.succeed(600)
        if how == "host":
            wait_until(lambda: self._serve(host), "the replica does not come back")

    def _kill(self, host: str, name: str) -> None:
        """SIGKILL to a process of a host, where there is one; an actor may have none on this host yet."""
        for process in processes(self._cluster, host):
            if title(process).startswith(name):
                process.kill()
                return
        print(f"none of {name} on {host}", flush=True)


def embedding(fasta: str, checkpoint: str, output: str) -> list[str]:
    return ["embed", fasta, "--checkpoint", checkpoint, "--part-rows", str(PART_ROWS), "--output", output]


def indexing(embeddings: Path, output: Path) -> list[str]:
    return ["index", str(embeddings), "--output", str(output), "--shard-rows", str(NUM_PROTEINS // 3)]


def checksums(folder: Path) -> dict[str, str]:
    return {name: files.sha256(str(folder / name)) for name in names_below(str(folder))}


def test_nothing_stays_or_is_lost_in_half_an_hour(tmp_path: Path) -> None:
    skip_where_impossible()
    pairs, fasta, model = make_pairs(tmp_path), str(tmp_path / "some.fasta.gz"), str(tmp_path / "checkpoint")
    with gzip.open(fasta, "wt", compresslevel=1) as stream:
        for i, sequence in enumerate(random_sequences(NUM_PROTEINS)):
            stream.write(f">tr|A{i:06d}|A{i}_TEST Protein {i}\n{sequence}\n")
    tiny_model().save_pretrained(model)
    calm = tmp_path / "calm"
    for arguments in (
        ["pretrain", "tiny_cpu", f"data.pairs={pairs}", f"run_dir={calm / 'run'}", *TRAINING],
        embedding(fasta, model, str(calm / "embeddings")),
        indexing(calm / "embeddings", calm / "index"),
    ):
        command = [sys.executable, "-m", "protclip", *arguments]
        subprocess.run(command, check=True, capture_output=True)
    settings = Settings(name=NAME, hosts=3, clients=1, cpus=2)
    with LocalCluster(settings) as cluster:
        deploy(cluster, tmp_path, str(calm / "index"))
        addresses = [f"http://{host.address}:8000" for host in cluster.hosts.values() if not host.is_client]
        command = [sys.executable, str(Path(search_clients.__file__)), str(NUM_CLIENTS), *addresses]
        clients = cluster.popen("c1", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        soak, watch = Soak(cluster, tmp_path, pairs=pairs, fasta=fasta, calm=calm), Watch(cluster)
        begun, number = time.monotonic(), 0
        while time.monotonic() - begun < 60 * MINUTES:
            soak.cycle(number)
            watch.look()
            number += 1
        minutes = (time.monotonic() - begun) / 60
        said = json.loads(clients.communicate()[0])
    report(soak, watch, said, minutes)
    assert (said["failed"], said["wrong"]) == ([], [])
    assert watch.left[-1] == watch.left[0]


def _first_and_last(watch: Watch) -> list[tuple[str, object, object]]:
    return [(what, one, watch.left[-1][what]) for what, one in watch.left[0].items()]


def report(soak: Soak, watch: Watch, said: dict[str, list[object]], minutes: float) -> None:
    """The results file."""
    lived = {key: found for key, found in watch.memory.items() if len(found) >= max(3, len(watch.left) // 2)}
    growth = {key: found[-1].mb - found[1].mb for key, found in lived.items()}
    rows = [
        f"| {host} | {name.removeprefix('ray::')} | {len(found)} | {found[0].mb:.0f} | {found[1].mb:.0f} | "
        f"{statistics.median(one.mb for one in found):.0f} | {found[-1].mb:.0f} | {found[1].num_files} → "
        f"{found[-1].num_files} | {found[1].num_threads} → {found[-1].num_threads} |"
        for (host, name, _), found in sorted(lived.items())
    ]
    table = [
        f"{len(watch.left)} cycles in {minutes:.0f} minutes on a cluster of three hosts, each a training, an embedding "
        f"of {NUM_PROTEINS:,} proteins, an index of them and its exchange in the server, while {NUM_CLIENTS} clients",
        f"search. Seed {SEED}; killed: {', '.join(f'{what} {n}' for what, n in sorted(soak.disturbed.items()))}.",
        f"Seconds of the cycles: {'; '.join(soak.log)}.",
        "",
        f"Searches answered: {said['answered']:,}, all alike; the longest took {said['longest'][1]:.1f} s.",
        "",
        "Memory of their own, in MB, of the processes that lived through half of the cycles, between cycles:",
        "",
        "| host | process | cycles | first | second | median | last | open files | threads |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "What was there after the first cycle; and after the last, where it was something else:",
        "",
        *(f"- {what}: {one if one == last else f'{one}; {last}'}" for what, one, last in _first_and_last(watch)),
    ]
    ours = [mb for (_, name, _), mb in growth.items() if "ServeReplica" in name]
    claims = [
        Claim(claim="soak_cycles", value=len(watch.left), unit="cycles"),
        Claim(claim="soak_failed_searches", value=len(said["failed"]), target=0, unit="searches"),
        Claim(claim="soak_replica_growth", value=max(ours, default=0.0), unit="MB"),
        Claim(claim="soak_largest_growth", value=max(growth.values(), default=0.0), unit="MB"),
    ]
    memory = {f"{host} {name} {pid}": [vars(one) for one in found] for (host, name, pid), found in watch.memory.items()}
    figures = {"left": watch.left, "memory": memory, "searches": said}
    write_results("soak", claims, figures, "\n".join(table), quick=MINUTES < FULL_MINUTES)
