"""A host whose link carries 10 Mbit/s: what slows, and what the moved bytes let expect. Figures, no claims on time."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import names_below
from several_hosts import PROTCLIP, TRAINING, Job, deploy, hosts_with, make_pairs, started
from tiny_model import random_sequences, tiny_model, write_protein_index
from trained_runs import num_rows_logged

from cluster.hosts import LocalCluster
from protclip import files

pytestmark = pytest.mark.prove

NAME = f"w{os.getpid() % 10**7}"
SLOW, RATES = "h3", (None, "10mbit")
BYTES_PER_S = 1_250_000
"""Of 10 Mbit/s."""
NUM_STEPS = 12
ASK = """
import json, statistics, sys, time
from protclip.client import Client
with Client(sys.argv[1]) as client:
    found = {}
    for name, call in (
        ("search", lambda: client.search(text="binds ATP", k=50)),
        ("embed of 256", lambda: client.embed_texts([f"binds ATP {i}" for i in range(256)])),
    ):
        seconds = []
        for _ in range(40):
            start = time.monotonic()
            call()
            seconds.append(time.monotonic() - start)
        found[name] = statistics.median(seconds)
print(json.dumps(found))
"""


def moved(cluster: LocalCluster) -> dict[str, int]:
    """Bytes that went through the link until now, each way."""
    names = ("rx_bytes", "tx_bytes")
    paths = [f"/sys/class/net/eth0/statistics/{name}" for name in names]
    said = cluster.run(SLOW, ["cat", *paths], capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(int, said.split()), strict=True))


def measured(cluster: LocalCluster, act: Callable[[], float]) -> str:
    """What the link moved for a unit of work, and how long that took; ``act`` says how many units it did."""
    before, start = moved(cluster), time.monotonic()
    units = act()
    seconds, after = (time.monotonic() - start) / units, moved(cluster)
    each = {name: (after[name] - before[name]) / units for name in after}
    at_least = max(each.values()) / BYTES_PER_S
    return f"{seconds:.4f} s a unit, {each['rx_bytes']:.0f} bytes in, {each['tx_bytes']:.0f} out: {at_least:.4f} s"


def test_a_slow_link_slows_what_goes_through_it(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "checkpoint"))
    index = write_protein_index(tmp_path, model, random_sequences(60))
    fasta = tmp_path / "some.fasta"
    fasta.write_text("".join(f">A{i:05d}\n{sequence}\n" for i, sequence in enumerate(random_sequences(12_000))))
    pairs, run = make_pairs(tmp_path), tmp_path / "run"
    with started(NAME, hosts=3) as cluster:
        training = [*PROTCLIP, "pretrain", "tiny_cpu", f"data.pairs={pairs}", f"run_dir={run}", *TRAINING]
        width = ["model.protein.config.hidden_size=64", "model.text.config.hidden_size=64", "epochs=100"]
        job = Job(cluster, "training", *training, *width, "checkpoint_every_s=600", said=tmp_path / "training.txt")

        def steps() -> float:
            first = num_rows_logged(run)
            job.wait_until(lambda: num_rows_logged(run) >= first + NUM_STEPS, "no further steps", 600)
            return num_rows_logged(run) - first

        job.wait_until(lambda: num_rows_logged(run) > 2, "no step")
        assert hosts_with(cluster, "ray::RayTrain") == {"h1", "h2", "h3"}
        for rate in RATES:
            cluster.limit(SLOW, rate)
            print(f"training, {rate}: {measured(cluster, steps)}", flush=True)
        cluster.limit(SLOW, None)
        cluster.run("c1", ["ray", "job", "stop", "training"], check=True, capture_output=True)
        job.process.wait()

        manifests = []
        for rate in RATES:
            folder = tmp_path / f"embeddings-{rate}"
            embed = ["embed", str(fasta), "--checkpoint", str(tmp_path / "checkpoint"), "--output", str(folder)]
            command = [*PROTCLIP, *embed, "--part-rows", "60", "--workers", "3"]
            job = Job(cluster, folder.name, *command, said=tmp_path / f"{rate}.txt")
            job.wait_until(lambda: hosts_with(cluster, "ray::MapWorker") == {"h1", "h2", "h3"}, "not on all hosts")

            def rows(folder: Path = folder, job: Job = job) -> float:
                def count() -> int:
                    return sum(
                        name.startswith(".work/") and name.endswith(".json") for name in names_below(str(folder))
                    )

                first = count()
                job.wait_until(lambda: job.is_over or count() >= first + 100, "no further parts", 600)
                return 60 * (count() - first)

            cluster.limit(SLOW, rate)
            print(f"embedding, {rate}: {measured(cluster, rows)}", flush=True)
            job.succeed(600)
            cluster.limit(SLOW, None)
            manifests.append(files.read_json(str(folder / "manifest.json"))["files"])
        assert manifests[0] == manifests[1]

        deploy(cluster, tmp_path, index)
        url = f"http://{cluster.hosts[SLOW].address}:8000"
        for rate in RATES:
            cluster.limit(SLOW, rate)

            def ask() -> float:
                done = cluster.run("c1", [sys.executable, "-c", ASK, url], capture_output=True, text=True, check=True)
                print(json.loads(done.stdout))
                return 80.0

            print(f"serving, {rate}: {measured(cluster, ask)}", flush=True)
