"""A part of a sharded deployment, as a gateway watches it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from ray.exceptions import RayActorError

from serve import parts
from serve.metrics import Load
from serve.parts import Part

pytestmark = pytest.mark.unit
HERE, AWAY = True, False


class Handle:
    """A deployment of one replica, over looks at which Serve's controller is there or away."""

    def __init__(self, looks: list[bool]) -> None:
        self.looks = iter(looks)
        self.seen = asyncio.Event()

    def broadcast(self, _method: str) -> Handle:
        return self

    async def results_async(self, **_: Any) -> list[Load]:
        there = next(self.looks, None)
        if there is None:
            self.seen.set()
        if there is AWAY:
            raise RayActorError
        return [Load(num_items=0, num_tokens=0, num_explanations=0, batch_s=0.0)]


def test_that_looks_fail_is_logged_when_it_begins_and_when_it_ends(monkeypatch, caplog):
    monkeypatch.setattr(parts, "LOOK_S", 0.0)
    monkeypatch.setattr(parts, "logger", logging.getLogger("parts"))  # Serve's own goes elsewhere once Serve is there

    async def scenario() -> Part:
        handle: Any = Handle([HERE, AWAY, AWAY, AWAY, HERE, HERE, AWAY])
        part = Part("shard 1", handle, holds="")
        watch = asyncio.create_task(part.watch())
        await handle.seen.wait()
        watch.cancel()
        return part

    with caplog.at_level("INFO", logger="parts"):
        part = asyncio.run(scenario())
    told = [(record.getMessage().split(";")[0], record.exc_info is not None) for record in caplog.records]
    fail, again = "looks at the replicas of shard 1 fail", "looks at the replicas of shard 1 succeed again"
    assert told == [(fail, True), (again, False), (fail, True), (again, False)]
    assert part.num_up == 1
