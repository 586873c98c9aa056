"""``protclip.client`` when its server dies, is started again, or wants to be left alone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replica_process import ReplicaProcess
from running import wait_until
from tiny_model import random_texts

from protclip.client import AsyncClient, Client
from protclip.errors import ConfigError, ServerError
from serve.keys import new_key

pytestmark = pytest.mark.serve
FREE, RATED = new_key("free"), new_key("rated", rate=1)
TEXTS = random_texts(30, seed=5)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "requests.jsonl"


@pytest.fixture(scope="module")
def replica(folders: Any, log: Path) -> Iterator[ReplicaProcess]:
    keys = log.with_name("keys.txt")
    keys.write_text(f"{FREE[1]}\n{RATED[1]}\n")
    args = folders.args.model_copy(update={"keys": str(keys), "request_log": str(log)})
    with ReplicaProcess(args, folders.index) as process:
        yield process.wait_ready()


def statuses(log: Path, key: str) -> list[int]:
    lines = map(json.loads, log.read_text().splitlines())
    return [line["status"] for line in lines if line["key"] == key or line["status"] == 429]


def test_a_key_is_given_or_taken_from_the_environment(replica, monkeypatch):
    monkeypatch.delenv("PROTCLIP_KEY", raising=False)
    with Client(replica.url) as client, pytest.raises(ConfigError, match=r"give a key.*Set PROTCLIP_KEY") as error:
        client.info()
    assert error.value.answer.status == 401 and error.value.answer.type == "UnauthorizedError"
    monkeypatch.setenv("PROTCLIP_KEY", FREE[0])
    with Client(replica.url) as client, Client(replica.url, key="protclip_other") as other:
        assert client.info()["limits"]["max_items"] == 8
        with pytest.raises(ConfigError, match="this key is not known here"):
            other.info()


def test_a_path_that_the_application_does_not_have_fails_at_once(replica, caplog):
    with (
        Client(f"{replica.url}/wrong", key=FREE[0]) as client,
        pytest.raises(ServerError, match=r"/wrong/health: 404 NotFound: Not Found \(request [0-9a-f]{32}\)"),
    ):
        client.health()
    assert caplog.records == []  # each wait would be one


def test_retry_after_is_honoured(replica, log):
    with Client(replica.url, key=RATED[0]) as client:
        for _ in range(4):
            assert client.info()["version"]
    wait_until(lambda: statuses(log, "rated").count(200) == 4, "the last line follows its answer")
    found = statuses(log, "rated")
    # Of one request a second all but the first are refused, and each is asked again once, when it may be.
    assert found.count(200) == 4 and found.count(429) <= 4


def test_it_rides_through_a_restart(replica, folders):
    stop = threading.Event()
    answered = {"thread": 0, "asyncio": 0}
    expected = folders.model.embed_texts(TEXTS)

    def seen(name: str, vectors: np.ndarray) -> None:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        answered[name] += 1

    def ask() -> None:
        with Client(replica.url, key=FREE[0]) as client:
            while not stop.is_set():
                seen("thread", client.embed_texts(TEXTS))

    async def ask_too() -> None:
        async with AsyncClient(replica.url, key=FREE[0]) as client:
            while not stop.is_set():
                seen("asyncio", await client.embed_texts(TEXTS))

    def wait_for_more() -> None:
        before = dict(answered)
        done = lambda: all(answered[name] > before[name] + 2 for name in answered)  # noqa: E731
        wait_until(lambda: done() or any(one.done() for one in running), "both are answered")

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ask), pool.submit(lambda: asyncio.run(ask_too()))]
        try:
            wait_for_more()
            replica.kill()
            replica.start()
            wait_for_more()
        finally:
            stop.set()
        for one in running:
            one.result()  # raises what was raised there
