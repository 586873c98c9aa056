"""Hosts of a cluster are cut from the network, killed and started again, while it works."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import search_clients
from click.testing import CliRunner
from kills import names_below
from running import wait_until
from several_hosts import (
    PROTCLIP,
    TRAINING,
    Job,
    bring_back,
    deploy,
    hosts_with,
    living_nodes,
    lose,
    make_pairs,
    raylets,
    start_again,
    started,
)
from tiny_model import random_sequences, tiny_model, write_protein_index
from trained_runs import assert_same_run, num_rows_logged

from cluster.hosts import LocalCluster
from protclip import files
from protclip.__main__ import cli
from protclip.embeddings.reading import read_embeddings

pytestmark = pytest.mark.prove

NAME = f"l{os.getpid() % 10**7}"
SHORT_CUT_S = 12.0
"""Ray bears with a host for a minute."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def calm(pairs: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training on one machine, which nothing disturbs."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    command = [sys.executable, "-m", "protclip", "pretrain", "tiny_cpu", f"data.pairs={pairs}", f"run_dir={folder}"]
    begun = time.monotonic()
    subprocess.run([*command, *TRAINING], check=True, capture_output=True)
    print(f"undisturbed, on one machine: {time.monotonic() - begun:.0f} s")
    return folder


def train(cluster: LocalCluster, pairs: str, run: Path, *, said: Path) -> Job:
    command = [*PROTCLIP, "pretrain", "tiny_cpu", f"data.pairs={pairs}", f"run_dir={run}", *TRAINING]
    room_for_a_replica = "workers.resources={CPU: 0.6}"
    return Job(cluster, said.stem, *command, room_for_a_replica, said=said)


def test_a_training_that_loses_hosts_five_times_ends_with_the_same_bits(pairs: str, calm: Path, tmp_path: Path) -> None:
    seed = 0
    rng = random.Random(seed)
    ways = rng.sample(["cut", "cut", "kill", "kill", "kill"], 5)
    with started(NAME, hosts=4) as cluster:  # one more than it needs
        run, begun = tmp_path / "lost", time.monotonic()
        job = train(cluster, pairs, run, said=tmp_path / "lost.txt")
        job.wait_until(lambda: num_rows_logged(run) > 2, "no step")
        trains_on = hosts_with(cluster, "ray::RayTrain")
        host = max(trains_on)
        cluster.cut(host)
        time.sleep(SHORT_CUT_S)
        cluster.restore(host)
        at = num_rows_logged(run)
        job.wait_until(lambda: num_rows_logged(run) > at + 1, "it does not go on after a short cut")
        assert hosts_with(cluster, "ray::RayTrain") == trains_on
        assert "going on after step" not in job.said()  # nothing was started again
        log = []
        for way in ways:
            wanted = num_rows_logged(run) + rng.randrange(1, 6)
            job.wait_until(lambda wanted=wanted: num_rows_logged(run) >= wanted, "no further step")  # type: ignore[misc]
            host = rng.choice(sorted(hosts_with(cluster, "ray::RayTrain") - {"h1"}))
            at, lost = num_rows_logged(run), time.monotonic()
            lose(cluster, host, way)
            # The lost worker may have been within a step, and the others have one more behind them.
            job.wait_until(lambda at=at: num_rows_logged(run) > at + 1, "it does not go on")  # type: ignore[misc]
            seconds = time.monotonic() - lost
            raylet_s = bring_back(cluster, host, way)
            log.append(f"{way} {host} at {at}, {seconds:.0f} s, {raylet_s:.0f} s")
            print(log[-1], flush=True)
        job.succeed(600)
        print(f"seed {seed}, in all {time.monotonic() - begun:.0f} s: {'; '.join(log)}")
    assert_same_run(run, calm)


def test_an_embedding_that_loses_and_gains_hosts_has_the_same_files(tmp_path: Path) -> None:
    seed, count = 0, 140_000
    fasta, model = tmp_path / "some.fasta.gz", str(tmp_path / "model")
    with gzip.open(fasta, "wt", compresslevel=1) as stream:
        for i, sequence in enumerate(random_sequences(count)):
            stream.write(f">tr|A{i:06d}|A{i}_TEST Protein {i}\n{sequence}\n")
    tiny_model().save_pretrained(model)
    rng = random.Random(seed)
    embed = ("embed", str(fasta), "--checkpoint", model, "--part-rows", "125", "--output")
    folder, calm = tmp_path / "lost", tmp_path / "calm"

    def num_parts() -> int:
        return sum(name.startswith(".work/") and name.endswith(".json") for name in names_below(str(folder)))

    with started(NAME, hosts=4) as cluster:
        cluster.kill("h4")  # it joins later
        job = Job(cluster, "lost", *PROTCLIP, *embed, str(folder), "--workers", "1-4", said=tmp_path / "lost.txt")
        log = []
        for way, host in (("kill", "h3"), ("add", "h4"), ("cut", "h2"), ("add", "h3")):
            wanted = num_parts() + rng.randrange(2, 12)
            job.wait_until(lambda wanted=wanted: num_parts() >= wanted, "no further parts")  # type: ignore[misc]
            at = num_parts()
            if way == "add":
                start_again(cluster, host)
            else:
                lose(cluster, host, way)
                job.wait_until(lambda host=host: host not in living_nodes(cluster), "it is not missed")  # type: ignore[misc]
            log.append(f"{way} {host} at {at}, to {num_parts()}; on {sorted(hosts_with(cluster, 'ray::MapWorker'))}")
            print(log[-1], flush=True)
        job.succeed(600)
    print(f"seed {seed}: {'; '.join(log)}")
    CliRunner().invoke(cli, [*embed, str(calm)], catch_exceptions=False)
    found, wanted_files = (
        {name: files.sha256(str(at / name)) for name in names_below(str(at))} for at in (folder, calm)
    )
    assert found == wanted_files
    assert read_embeddings(str(folder)).ids.tolist() == [f"A{i:06d}" for i in range(count)]


@pytest.mark.parametrize("way", ["kill", "cut"])
def test_clients_that_know_two_hosts_lose_no_search_when_one_dies(way: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "checkpoint"))
    index = write_protein_index(tmp_path, model, random_sequences(60))
    with started(NAME, hosts=3) as cluster:
        deploy(cluster, tmp_path, index)
        addresses = [f"http://{cluster.hosts[host].address}:8000" for host in ("h2", "h3")]
        clients = cluster.popen(
            "c1",
            [sys.executable, str(Path(search_clients.__file__)), "8", *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert clients.stdin is not None and clients.stdout is not None

        def num_answered() -> int:
            print("?", file=clients.stdin, flush=True)
            return int(clients.stdout.readline())

        wait_until(lambda: num_answered() > 500, "no answers")
        lose(cluster, "h2", way)
        wait_until(lambda: "h2" not in living_nodes(cluster), "it is not missed")
        at = num_answered()
        wait_until(lambda: num_answered() > at + 500, "no answers any more")
        bring_back(cluster, "h2", way)
        wait_until(lambda: "h2" in hosts_with(cluster, "ray::ServeReplica"), "the replica does not come back")
        at = num_answered()
        wait_until(lambda: num_answered() > at + 500, "no answers any more")
        said = json.loads(clients.communicate()[0])
        print(f"{way}: {said}")
    assert (said["failed"], said["wrong"]) == ([], [])


@pytest.mark.parametrize("returns", ["at once", "late"])
def test_after_the_head_died_the_same_commands_go_on(returns: str, pairs: str, calm: Path, tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "checkpoint"))
    index = write_protein_index(tmp_path, model, random_sequences(60))
    run = tmp_path / "lost"
    with started(NAME, hosts=3) as cluster:

        def answers(host: str) -> bool:
            ask = "import sys, requests; requests.post(sys.argv[1], json={'text': 'ATP'}, timeout=5).raise_for_status()"
            url = f"http://{cluster.hosts[host].address}:8000/v1/search"
            return cluster.run("c1", [sys.executable, "-c", ask, url], capture_output=True).returncode == 0

        deploy(cluster, tmp_path, index)
        job = train(cluster, pairs, run, said=tmp_path / "lost.txt")
        job.wait_until(lambda: num_rows_logged(run) > 3, "no step")
        cluster.kill("h1")
        died = time.monotonic()
        log = []

        def note(what: str) -> None:
            log.append(f"{what} after {time.monotonic() - died:.0f} s")
            print(log[-1], flush=True)

        if returns == "at once":
            start_again(cluster, "h1")
            note("the head is back")
        watched = {
            "the submission has ended": lambda: job.is_over,
            "no training worker is left": lambda: not hosts_with(cluster, "ray::RayTrain"),
            "the nodes' raylets have ended": lambda: not raylets(cluster, "h2") and not raylets(cluster, "h3"),
            "no replica is left": lambda: not hosts_with(cluster, "ray::ServeReplica"),
            "searches are refused": lambda: not answers("h2") and not answers("h3"),
        }
        while watched:
            for what in [what for what, is_true in watched.items() if is_true()]:
                del watched[what]
                note(what)
            assert time.monotonic() - died < 400, watched
        if returns == "late":
            start_again(cluster, "h1")
            note("the head is back")
        time.sleep(10)
        print(
            "nodes of the new cluster", living_nodes(cluster), "submission", job.process.returncode, job.said()[-500:]
        )
        for host in ("h2", "h3"):
            start_again(cluster, host)
        wait_until(lambda: living_nodes(cluster) == {"h1", "h2", "h3"}, "nodes do not join")
        note("the nodes are back")
        deploy(cluster, tmp_path, index)
        assert answers("h2") and answers("h3")
        note("searches are answered")
        train(cluster, pairs, run, said=tmp_path / "again.txt").succeed(600)
        note("the training is done")
    assert_same_run(run, calm)
