"""``protclip.client`` under a server of ``protclip serve`` whose HAProxy is killed, and that is started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from running import Running, wait_until
from tiny_model import random_sequences, tiny_model, write_protein_index

from benchmarks.report import Claim, write_results
from protclip.client import AsyncClient, Client

pytestmark = pytest.mark.prove

NUM_KILLS = 3
PATIENCE_S = 600.0
"""The silence says how much was needed; on a busy machine a start takes minutes."""
NUM_THREADS, NUM_TASKS = 4, 4
QUESTION = {"sequence": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "k": 10}


class Asking:
    """Clients in threads and in an event loop that ask one thing after another, until the end of the block."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ends: list[list[float]] = [[] for _ in range(NUM_THREADS + NUM_TASKS)]
        """When each client was answered, by ``time.monotonic``."""
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(NUM_THREADS + 1)
        self._running = [self._pool.submit(self._ask, ends) for ends in self.ends[:NUM_THREADS]]
        self._running.append(self._pool.submit(lambda: asyncio.run(self._ask_too(self.ends[NUM_THREADS:]))))

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()  # raises what was raised there

    def wait_for_more(self) -> None:
        """Wait until each client is answered a few more times."""
        before = list(map(len, self.ends))
        wait_until(
            lambda: (
                all(len(ends) > count + 5 for ends, count in zip(self.ends, before, strict=True))
                or any(one.done() for one in self._running)
            ),
            "every client is answered",
            timeout_s=PATIENCE_S,
        )

    def silence(self, disturb: Callable[[], None]) -> float:
        """The longest time that a client waits for an answer while something happens."""
        self.wait_for_more()
        began = time.monotonic()
        disturb()
        self.wait_for_more()
        return max(self._longest(ends, began) for ends in self.ends)

    def _longest(self, ends: list[float], began: float) -> float:
        since = [end for end in ends if end > began - 1]
        return max(after - before for before, after in pairwise(since))

    def _ask(self, ends: list[float]) -> None:
        with Client(self.url, patience_s=PATIENCE_S) as client:
            while not self._stop.is_set():
                assert len(client.search(**QUESTION).hits) == 10
                ends.append(time.monotonic())

    async def _ask_too(self, ends_of: list[list[float]]) -> None:
        async def ask(ends: list[float]) -> None:
            while not self._stop.is_set():
                assert len((await client.search(**QUESTION)).hits) == 10
                ends.append(time.monotonic())

        async with AsyncClient(self.url, patience_s=PATIENCE_S) as client:
            await asyncio.gather(*map(ask, ends_of))


def test_no_call_fails_when_haproxy_is_killed_and_the_server_is_started_again(tmp_path):
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "checkpoint"))
    folders = write_protein_index(tmp_path, model, random_sequences(1000)), str(tmp_path / "checkpoint")
    server = Running(*folders, "--num-replicas", "2")
    with contextlib.ExitStack() as servers:
        servers.enter_context(server).wait_ready()
        wait_until(lambda: server.num_up() == 2, "two replicas are ready")

        def kill_haproxy() -> None:
            wait_until(lambda: server.named("/haproxy"), "HAProxy runs")
            server.named("/haproxy")[0].kill()

        def start_again() -> None:
            server.signal(signal.SIGTERM)
            assert server.wait(60) == 0, server.said
            servers.enter_context(Running(*folders, "--num-replicas", "2", port=server.port)).wait_ready()

        with Asking(server.url) as asking:
            kills = [asking.silence(kill_haproxy) for _ in range(NUM_KILLS)]
            restart = asking.silence(start_again)
        answered = sum(map(len, asking.ends))
    claims = [
        Claim(claim="serve_client_failed_calls", value=0, target=0, unit="calls"),
        Claim(claim="serve_client_silence_haproxy_longest", value=max(kills), unit="s"),
        Claim(claim="serve_client_silence_restart", value=restart, unit="s"),
    ]
    table = f"""
Two replicas of a tiny model over 1,000 vectors; {NUM_THREADS} clients in threads and {NUM_TASKS} tasks of an
asynchronous one search without a pause, {answered:,} times in all. The silence is the longest time that any of them
waits for an answer.

| what happens | silence |
|---|---|
| HAProxy gets SIGKILL, {NUM_KILLS} times | {", ".join(f"{one:.1f} s" for one in kills)} |
| the server is ended by SIGTERM and started again | {restart:.1f} s |
"""
    write_results(
        "serve_client", claims, {"haproxy_s": kills, "restart_s": restart, "answered": answered}, table, quick=False
    )
