"""A server from its start to its end, whatever happens to it. ``make prove`` has more of it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from raw_http import head, read_answer
from releases import Expected, write_release
from running import Load, Running, wait_until
from sockets import family, listening, names, open_to_others

from serve.haproxy import haproxy_binary

pytestmark = pytest.mark.serve

SEARCH = {"sequence": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "k": 3}
LONG = json.dumps({"proteins": ["ACDEFGHIKLMNPQRSTVWY" * 50] * 64}).encode()
"""Takes the tiny model a second."""

Start = Callable[..., Running]


@pytest.fixture
def start(folders, tmp_path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(*arguments: str, **env: str) -> Running:
        env["HOME"] = str(tmp_path)
        started.append(Running(folders.index, folders.args.checkpoint, *arguments, env=env))
        return started[-1]

    yield begin
    for server in started:
        server.kill()


def check_ended_in_order(server: Running) -> None:
    """Long requests are under way, and a signal comes: all are answered, and nothing is left."""
    request = head(Content_Type="application/json", Content_Length=len(LONG)) + LONG
    with contextlib.ExitStack() as opened:
        under_way = [
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60)) for _ in range(4)
        ]
        for connection in under_way:
            connection.sendall(request)
        # One that was sent later is answered: those before it have been taken.
        assert requests.get(f"{server.url}/health", timeout=60).status_code == 200
        server.signal(signal.SIGTERM)
        assert [read_answer(connection).status for connection in under_way] == [200] * 4
    assert server.wait() == 0
    assert server.left() == []


def test_an_index_is_exchanged_under_load_and_each_answer_is_of_one_release(start, folders, tmp_path):
    releases = [folders.index, write_release(tmp_path, folders.model, "next", seed=1)]
    expected = Expected(releases, folders.args.checkpoint, sequence=SEARCH["sequence"], k=3)
    server = start("--num-replicas", "2").wait_ready()
    url = f"{server.url}/v1/search"
    with Load(url, expected.body, num_clients=4, problem=expected.problem) as load:
        for index, fingerprint in zip(reversed(releases), reversed(expected.answers), strict=True):
            seen = len(load.answered)
            wait_until(lambda seen=seen: len(load.answered) > seen + 20, "requests are answered")
            done = server.swap("default", index)
            assert (done.returncode, done.stderr) == (0, "checking the index\n")
            assert done.stdout == f"default: the index {fingerprint} answers, in 2 replicas\n"
    assert load.failed == [] and min(expected.seen.values()) > 0


def test_a_dead_replica_fails_no_request_and_a_signal_lets_what_is_under_way_be_answered(start, tmp_path):
    server = start("--num-replicas", "2").wait_ready()
    assert open_to_others(listening(family(server.process.pid))) == []
    if haproxy_binary() is not None:
        # HAProxy is replaced by another when it hears of a replica.
        wait_until(lambda: "haproxy" in names(family(server.process.pid)), "HAProxy runs")
        wait_until(lambda: server.num_up() == 2, "two replicas are ready")
        with Load(f"{server.url}/v1/search", SEARCH, num_clients=4) as load:
            wait_until(lambda: len(load.answered) > 20, "requests are answered")
            server.named("ServeReplica")[0].kill()
            wait_until(lambda: server.num_up() == 1, "the death is noticed")
            wait_until(lambda: server.num_up() == 2, "two replicas are ready again")
        assert load.failed == []
    check_ended_in_order(server)
    assert not list(tmp_path.rglob("auth_token"))


def test_without_haproxy_too_a_signal_lets_what_is_under_way_be_answered(start):
    server = start(RAY_SERVE_ENABLE_HA_PROXY="0").wait_ready()
    assert requests.get(f"{server.url}/health", timeout=60).status_code == 200
    check_ended_in_order(server)


def test_a_server_whose_ray_dies_says_so_and_ends(start):
    server = start().wait_ready()
    server.named("/raylet/raylet")[0].kill()
    assert server.wait() == 1
    assert "error: the server ends, for raylet of its Ray was ended by SIGKILL\n" in server.said
    assert server.left() == []


def check_signal_during_start(start: Start, *, after_s: float, number: signal.Signals) -> None:
    server = start()
    time.sleep(after_s)
    server.signal(number)
    code = server.wait()
    # Before it takes signals itself, Python does; after it is ready, it ends with 0.
    assert code in ({0} if "ready: " in server.said else {128 + number, -number}), server.said
    assert server.left() == []


@pytest.mark.parametrize("seed", range(1))
def test_a_signal_during_the_start_ends_it(start, seed):
    rng = random.Random(seed)
    check_signal_during_start(start, after_s=1 + 7 * rng.random(), number=rng.choice([signal.SIGTERM, signal.SIGINT]))


def test_gpus_that_are_not_there_are_not_waited_for(start):
    server = start("--num-gpus", "1000")
    assert server.wait() == 1
    assert "num_gpus=1000 for 1 replicas, and Ray finds" in server.said
    assert server.left() == []
