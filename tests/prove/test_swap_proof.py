"""Releases of an index that are exchanged in a server under load."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import requests
from releases import Expected, damage, make_too_large, write_release
from running import COMMAND, Load, Running, wait_until
from tiny_model import tiny_model

from benchmarks.report import Claim, write_results
from cluster.folders import locked
from serve.indexes import LOADING

pytestmark = pytest.mark.prove

FULL_SWAPS = 20
NUM_SWAPS = int(os.environ.get("PROTCLIP_PROVE_SWAPS", FULL_SWAPS))
NUM_CLIENTS = 16
NUM_ROWS = 5_000
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def replicas_mb(server: Running) -> list[int]:
    """Memory that each replica has to itself."""
    return sorted(psutil.Process(one.pid).memory_full_info().uss >> 20 for one in server.named("ServeReplica"))


def served(server: Running) -> str:
    """Fingerprint of the index that answers."""
    (index,) = requests.get(f"{server.url}/v1/indexes", timeout=60).json()["indexes"]
    return str(index["fingerprint"])


def test_no_request_fails_while_releases_are_exchanged_and_bad_ones_are_refused(tmp_path: Path) -> None:
    model, checkpoint = tiny_model(), str(tmp_path / "checkpoint")
    model.save_pretrained(checkpoint)
    releases = [write_release(tmp_path, model, f"release-{i}", count=NUM_ROWS, seed=i) for i in range(3)]
    foreign = write_release(tmp_path, tiny_model(seed=1), "foreign")
    bad = {
        "damaged": (damage(releases[1], tmp_path / "damaged"), "its SHA-256 is not the manifest's"),
        "of another model": (foreign, "was made by the model"),
        "too large": (make_too_large(releases[1], tmp_path / "large"), "GB are needed beside what is loaded"),
    }
    expected = Expected(releases, checkpoint, sequence=SEQUENCE, k=10)
    fingerprints = list(expected.answers)
    took: list[float] = []
    with Running(releases[0], checkpoint, "--num-replicas", "2") as server:
        server.wait_ready()
        wait_until(lambda: server.num_up() == 2, "two replicas are ready")
        processes = {one.pid for one in server.named("ServeReplica")}
        load = Load(f"{server.url}/v1/search", expected.body, num_clients=NUM_CLIENTS, problem=expected.problem)
        with load:
            wait_until(lambda: len(load.answered) > 100, "requests are answered")
            before = replicas_mb(server)
            for i in range(1, NUM_SWAPS + 1):
                start = time.monotonic()
                done = server.swap("default", releases[i % 3])
                took.append(time.monotonic() - start)
                assert done.returncode == 0, done.stderr
                assert fingerprints[i % 3] in done.stdout and "in 2 replicas" in done.stdout
                assert served(server) == fingerprints[i % 3]
            after = replicas_mb(server)
            for what, (path, reason) in bad.items():
                done = server.swap("default", path)
                assert done.returncode == 1 and reason in done.stderr, (what, done.stderr)
                assert served(server) == fingerprints[NUM_SWAPS % 3]
        assert {one.pid for one in server.named("ServeReplica")} == processes  # none was replaced
    longest = max(end - begin for begin, end in load.answered)
    table = [
        f"Two replicas of a tiny model, behind HAProxy. {NUM_CLIENTS} clients with connections that they keep ask POST",
        f"/v1/search. Three releases of {NUM_ROWS:,} rows take turns, by `protclip swap-index`. Each answer is",
        "compared, field by field, with what the release that it names answers in Python.",
        "",
        "| | |",
        "|---|---|",
        f"| exchanges | {NUM_SWAPS} |",
        f"| requests answered, rightly | {len(load.answered):,} |",
        *(f"| … by release {i} | {expected.seen[one]:,} |" for i, one in enumerate(fingerprints)),
        f"| failed, or not the answer of the release that they name | {len(load.failed)} |",
        f"| longest time to an answer | {longest:.2f} s |",
        f"| the command, median and longest | {statistics.median(took):.1f} s, {max(took):.1f} s |",
        f"| memory of each replica before and after, MB | {before}, {after} |",
        f"| refused, while the last release went on answering | {', '.join(bad)} |",
    ]
    claims = [
        Claim(claim="serve_swaps_failed_requests", value=len(load.failed), target=0, unit="requests"),
        Claim(claim="serve_swaps_command_median", value=statistics.median(took), unit="s"),
        Claim(claim="serve_swaps_longest_answer", value=longest, unit="s"),
        Claim(claim="serve_swaps_memory_left_behind", value=max(after) - max(before), unit="MB"),
    ]
    figures = {"took_s": took, "memory_mb": [before, after], "answered": len(load.answered), "failed": load.failed}
    write_results("serve_swaps", claims, figures, "\n".join(table), quick=NUM_SWAPS < FULL_SWAPS)
    assert load.failed == []
    assert min(expected.seen.values()) > 0


def test_when_a_replica_dies_in_an_exchange_all_go_back_before_the_command_says_so(tmp_path: Path) -> None:
    model, checkpoint = tiny_model(), str(tmp_path / "checkpoint")
    model.save_pretrained(checkpoint)
    old, new = (write_release(tmp_path, model, name, seed=i) for i, name in enumerate(("old", "new")))
    expected = Expected([old, new], checkpoint, sequence=SEQUENCE, k=10)
    with Running(old, checkpoint, "--num-replicas", "2") as server:
        server.wait_ready()
        wait_until(lambda: server.num_up() == 2, "two replicas are ready")
        (root,) = server.folder.glob("protclip-*")

        def loading() -> list[psutil.Process]:
            replicas = server.named("ServeReplica")
            return [one for one in replicas if any(file.path.endswith(LOADING) for file in one.open_files())]

        url = f"{server.url}/v1/search"
        with Load(url, expected.body, num_clients=4, problem=expected.problem) as load:
            with locked(root / LOADING):  # no replica gets to the end of it
                command = [*COMMAND, "swap-index", "default", new]
                process = subprocess.Popen(command, env=server.env, stderr=subprocess.PIPE, text=True)
                wait_until(lambda: loading() or process.poll() is not None, "a replica was told")
                (victim, *_) = loading()
                victim.kill()
                wait_until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, "it is dead")
            _, said = process.communicate(timeout=600)
            assert process.returncode == 1 and "refused, and all answer as before: " in said, said
            assert len(server.named("ServeReplica")) == 2 and server.num_up() == 2
            assert {served(server) for _ in range(20)} == {next(iter(expected.answers))}
        assert load.failed == []
