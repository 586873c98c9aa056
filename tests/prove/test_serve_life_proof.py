"""A server whose processes are killed under load, and one that is ended at any moment."""

from __future__ import annotations

import os
import random
import signal
import socket
import statistics
import time
from dataclasses import asdict, dataclass

import pytest
import requests
from running import Load, Running, wait_until
from tiny_model import random_sequences, tiny_model, write_protein_index

from benchmarks.report import Claim, write_results

pytestmark = pytest.mark.prove

FULL_KILLS = 20
NUM_KILLS = int(os.environ.get("PROTCLIP_PROVE_KILLS", FULL_KILLS))
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


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What became of them."""

    answered: int
    failed: int
    failing_s: float
    """From the first that failed to the end of the last."""
    longest_s: float
    """To an answer."""


def since(start: float, load: Load) -> Requests:
    """Requests that ended after a moment."""
    answered = [(begin, end) for begin, end in load.answered if end > start]
    failed = [(begin, end) for begin, end, _ in load.failed if end > start]
    over = max(end for _, end in failed) - min(begin for begin, _ in failed) if failed else 0.0
    longest = max(end - begin for begin, end in answered)
    return Requests(answered=len(answered), failed=len(failed), failing_s=round(over, 2), longest_s=round(longest, 2))


def test_what_fails_when_a_process_is_killed(folders: tuple[str, str]) -> None:
    with Running(*folders, "--num-replicas", "2") as server:
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
        replicas = f"{NUM_KILLS} replicas"
        killed = {replicas: since(0.0, load)}
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
            killed[what] = since(start, one)
        server.signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.said
        assert server.left() == []
    rows = [
        f"| {what} | {found.answered:,} | {found.failed} | {found.failing_s:.1f} s | {found.longest_s:.2f} s |"
        for what, found in killed.items()
    ]
    table = [
        f"Two replicas of a tiny model over 1,000 vectors; {NUM_CLIENTS} clients with connections that they keep ask",
        "POST /v1/search. Processes get SIGKILL: each replica after two were ready again, the others once.",
        "",
        "| killed | answered | failed | failing for | longest time to an answer |",
        "|---|---|---|---|---|",
        *rows,
    ]
    claims = [
        Claim(claim="serve_kills_failed_requests", value=killed[replicas].failed, target=0, unit="requests"),
        Claim(claim="serve_kills_replica_noticed_median", value=statistics.median(noticed), unit="s"),
        Claim(claim="serve_kills_replica_noticed_longest", value=max(noticed), unit="s"),
        Claim(claim="serve_kills_replica_replaced_median", value=statistics.median(ready), unit="s"),
        Claim(claim="serve_kills_replica_replaced_longest", value=max(ready), unit="s"),
        Claim(claim="serve_kills_haproxy_failing", value=killed["HAProxy"].failing_s, unit="s"),
    ]
    figures = {
        "killed": {what: asdict(found) for what, found in killed.items()},
        "noticed_s": noticed,
        "replaced_s": ready,
    }
    write_results("serve_kills", claims, figures, "\n".join(table), quick=NUM_KILLS < FULL_KILLS)
    assert load.failed == []


@pytest.mark.parametrize("haproxy", ["1", "0"])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(folders: tuple[str, str], haproxy: str) -> None:
    rng = random.Random(202611)
    for _ in range(NUM_SIGNALS):
        with Running(*folders, env={"RAY_SERVE_ENABLE_HA_PROXY": haproxy}) as server:
            time.sleep(20 * rng.random())
            number = rng.choice([signal.SIGTERM, signal.SIGINT])
            if rng.random() < 0.5:
                server.signal(number)
            else:  # as a terminal does
                os.killpg(server.process.pid, number)
            code = server.wait(60)
            assert code in ({0} if "ready: " in server.said else {128 + number, -number}), server.said
            assert server.left() == []


def test_a_second_signal_does_not_wait(folders: tuple[str, str]) -> None:
    with Running(*folders).wait_ready() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as half_sent:
            half_sent.sendall(b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            assert requests.get(f"{server.url}/health", timeout=60).status_code == 200
            server.signal(signal.SIGTERM)
            time.sleep(1)
            server.signal(signal.SIGINT)
            assert server.wait(60) == 128 + signal.SIGINT
        assert server.left() == []


@pytest.mark.parametrize("victim", ["gcs_server", "ray::DashboardAgent"])
def test_a_server_ends_with_its_ray(folders: tuple[str, str], victim: str) -> None:
    with Running(*folders).wait_ready() as server:
        kill_one(server, victim)
        assert server.wait(15) == 1
        assert "error: the server ends, for " in server.said
        assert server.left() == []
