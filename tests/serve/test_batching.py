"""Jobs that wait are computed together, and each fails or is given up alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from serve.batching import Batcher
from serve.errors import OverloadedError

pytestmark = pytest.mark.unit


class Recorder:
    """Doubles numbers; keeps the batches that it saw, and waits in the first until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, jobs: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(jobs))
        assert self.go.wait(10)
        return [ValueError("odd") if job % 2 else 2 * job for job in jobs]


def batcher(compute: Recorder, *, tokens_per_batch: int = 10, max_waiting_tokens: int = 100) -> Batcher[int, int]:
    return Batcher(compute, tokens_per_batch=tokens_per_batch, max_waiting_tokens=max_waiting_tokens)


async def started(
    batch: Batcher[int, int], compute: Recorder, jobs: Sequence[tuple[int, int]]
) -> list[asyncio.Task[int]]:
    """Jobs, of which the first is being computed while the others wait."""
    tasks = [asyncio.create_task(batch.run(*jobs[0]))]
    while not compute.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(batch.run(*job)) for job in jobs[1:]]
    await asyncio.sleep(0.01)
    return tasks


def test_what_waits_is_computed_together_in_its_order_within_the_budget():
    async def scenario() -> None:
        compute = Recorder(held=True)
        tasks = await started(batcher(compute), compute, [(0, 1), (2, 4), (4, 6), (6, 50), (8, 1)])
        compute.go.set()
        assert await asyncio.gather(*tasks) == [0, 4, 8, 12, 16]
        assert compute.batches == [[0], [2, 4], [6], [8]]

    asyncio.run(scenario())


def test_a_job_fails_alone():
    async def scenario() -> None:
        compute = Recorder(held=True)
        tasks = await started(batcher(compute), compute, [(0, 1), (2, 1), (3, 1), (4, 1)])
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert compute.batches == [[0], [2, 3, 4]]
        assert [results[0], results[1], results[3]] == [0, 4, 8] and isinstance(results[2], ValueError)
        with pytest.raises(ValueError, match="odd"):  # raised, and no result that is an exception
            await tasks[2]

    asyncio.run(scenario())


def test_a_batch_that_fails_whole_fails_its_jobs_and_no_later_one():
    class Failing(Recorder):
        def __call__(self, jobs: Sequence[int]) -> list[int | Exception]:
            super().__call__(jobs)
            if 2 in jobs:
                raise MemoryError("no room")
            return list(jobs)

    async def scenario() -> None:
        compute = Failing(held=True)
        batch = batcher(compute, tokens_per_batch=1)
        tasks = await started(batch, compute, [(0, 1), (2, 1), (4, 1)])
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == 0 and isinstance(results[1], MemoryError) and results[2] == 4
        assert await batch.run(6, 1) == 6

    asyncio.run(scenario())


def test_a_job_whose_caller_has_gone_is_not_computed():
    async def scenario() -> None:
        compute = Recorder(held=True)
        tasks = await started(batcher(compute), compute, [(0, 1), (2, 1), (4, 1)])
        tasks[1].cancel()
        await asyncio.sleep(0)
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert compute.batches == [[0], [4]] and results[2] == 8

    asyncio.run(scenario())


def test_what_would_wait_too_long_is_refused_and_room_comes_back():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_waiting_tokens=10)
        tasks = await started(batch, compute, [(0, 99), (2, 4), (4, 6)])
        with pytest.raises(OverloadedError):
            await batch.run(6, 1)
        compute.go.set()
        assert await asyncio.gather(*tasks) == [0, 4, 8]
        assert await batch.run(6, 99) == 12  # alone, whatever it costs

    asyncio.run(scenario())
