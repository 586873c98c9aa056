"""A server whose processes are killed under load, and one that is ended at any moment."""

from __future__ import annotations

import os
import platform
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
from running import Load, Running, wait_until
from tiny_model import random_sequences, tiny_model, write_protein_index

pytestmark = pytest.mark.prove

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "serve_kills_2core_202611.md"
NUM_KILLS = int(os.environ.get("PROTCLIP_PROVE_KILLS", "20"))
NUM_CLIENTS = 16
NUM_SIGNALS = 20
SEARCH = {"sequence": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "k": 10}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("served")
    model = tiny_model()
    model.save_pretrained(str(folder / "checkpoint"))
    return write_protein_index(folder, model, random_sequences(1000)), str(folder / "checkpoint")


def kill_one(server: Running, name: str) -> int:
    """SIGKILL to the first of these processes; its number."""
    process = server.named(name)[0]
    process.kill()
    return int(process.pid)


def of_one(load: Load, start: float) -> tuple[int, int, float, float]:
    """Since a moment: requests answered, failed, seconds over which requests failed, longest time to an answer."""
    answered = [(begin, end) for begin, end in load.answered if end > start]
    failed = [(begin, end) for begin, end, _ in load.failed if end > start]
    over = max(end for _, end in failed) - min(begin for begin, _ in failed) if failed else 0.0
    return len(answered), len(failed), over, max(end - begin for begin, end in answered)


def test_what_fails_when_a_process_is_killed(folders: tuple[str, str]) -> None:
    server = Running(*folders, "--num-replicas", "2")
    try:
        server.wait_ready()
        url = f"{server.url}/v1/search"
        wait_until(lambda: server.num_up() == 2, "two replicas are ready")
        noticed, ready = [], []
        with Load(url, SEARCH, num_clients=NUM_CLIENTS) as load:
            wait_until(lambda: len(load.answered) > 100, "requests are answered")
            for _ in range(NUM_KILLS):
                kill_one(server, "ServeReplica")
                start = time.monotonic()
                wait_until(lambda: server.num_up() == 1, "the death is noticed")
                noticed.append(time.monotonic() - start)
                wait_until(lambda: server.num_up() == 2, "two replicas are ready again")
                ready.append(time.monotonic() - start)
        replicas = of_one(load, 0.0)
        others = {}
        for name, what in (("/haproxy", "HAProxy"), ("ServeController", "controller"), ("HAProxyManager", "manager")):
            with Load(url, SEARCH, num_clients=NUM_CLIENTS) as one:
                wait_until(lambda one=one: len(one.answered) > 100, "requests are answered")  # type: ignore[misc]
                start = time.monotonic()
                pid = kill_one(server, name)
                wait_until(
                    lambda name=name, pid=pid: [one.pid for one in server.named(name)] not in ([], [pid]),  # type: ignore[misc]
                    f"another {what} runs",
                )
                wait_until(
                    lambda one=one: one.answered and one.answered[-1][1] > time.monotonic() - 1,  # type: ignore[misc]
                    "requests are answered",
                )
                time.sleep(5)
            others[what] = of_one(one, start)
        server.signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.said
        assert server.left() == []
    finally:
        server.kill()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    rows = [f"| {NUM_KILLS} replicas, each after two were ready again", *(f"| {what}, once" for what in others)]
    lines = [
        "# Processes of a server, killed with SIGKILL under load",
        "",
        f"`make prove`, commit {commit.stdout.strip()}, {platform.machine()} with {os.cpu_count()} cores and "
        f"{os.getloadavg()[1]:.1f} processes that wanted one. Two replicas of a tiny model over 1,000 vectors, "
        f"{NUM_CLIENTS} clients with connections that they keep, POST /v1/search.",
        "",
        "| killed | answered | failed | over | longest time to an answer |",
        "|---|---|---|---|---|",
        *(
            f"{row} | {found[0]:,} | {found[1]} | {found[2]:.1f} s | {found[3]:.2f} s |"
            for row, found in zip(rows, [replicas, *others.values()], strict=True)
        ),
        "",
        f"HAProxy took a dead replica out after {sorted(noticed)[len(noticed) // 2]:.2f} s (median; at most "
        f"{max(noticed):.2f} s), and another was ready after {sorted(ready)[len(ready) // 2]:.1f} s (at most "
        f"{max(ready):.1f} s).",
    ]
    RESULTS.write_text("\n".join(lines) + "\n")
    assert load.failed == []


@pytest.mark.parametrize("haproxy", ["1", "0"])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(folders: tuple[str, str], haproxy: str) -> None:
    rng = random.Random(202611)
    for _ in range(NUM_SIGNALS):
        server = Running(*folders, env={"RAY_SERVE_ENABLE_HA_PROXY": haproxy})
        try:
            time.sleep(20 * rng.random())
            number = rng.choice([signal.SIGTERM, signal.SIGINT])
            if rng.random() < 0.5:
                server.signal(number)
            else:  # as a terminal does
                os.killpg(server.process.pid, number)
            expected = {0} if "ready" in server.said else {128 + number, -number, 0}
            assert server.wait(60) in expected, server.said
            assert server.left() == []
        finally:
            server.kill()


def test_a_second_signal_does_not_wait(folders: tuple[str, str]) -> None:
    server = Running(*folders).wait_ready()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as half_sent:
            half_sent.sendall(b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            assert requests.get(f"{server.url}/health", timeout=60).status_code == 200
            server.signal(signal.SIGTERM)
            time.sleep(1)
            server.signal(signal.SIGINT)
            assert server.wait(60) == 128 + signal.SIGINT
        assert server.left() == []
    finally:
        server.kill()


@pytest.mark.parametrize("victim", ["gcs_server", "ray::DashboardAgent"])
def test_a_server_ends_with_its_ray(folders: tuple[str, str], victim: str) -> None:
    server = Running(*folders).wait_ready()
    try:
        kill_one(server, victim)
        assert server.wait(15) == 1
        assert "error: the server ends, for " in server.said
        assert server.left() == []
    finally:
        server.kill()
