"""Items that wait are computed together, in turns of the requests; each request fails or is given up alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from serve.batching import Batcher
from serve.errors import DeadlineError, OverloadedError

pytestmark = pytest.mark.unit


class Recorder:
    """Doubles numbers; keeps the batches that it saw, and waits in the first until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        assert self.go.wait(10)
        return [ValueError("odd") if item % 2 else 2 * item for item in items]


class Slow(Recorder):
    """Takes 20 ms for a batch."""

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        time.sleep(0.02)
        return super().__call__(items)


def batcher(compute: Recorder, *, max_batch_cost: int = 10, max_cost_before: int = 100) -> Batcher[int, int]:
    return Batcher(compute, max_batch_cost=max_batch_cost, max_cost_before=max_cost_before)


async def one(batch: Batcher[int, int], item: int, cost: int) -> int:
    (result,) = await batch.run([item], [cost])
    return result


async def started(compute: Recorder, calls: Sequence[Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
    """Calls of ``run``, of which the first is being computed while the others wait."""
    tasks = [asyncio.create_task(calls[0])]
    while not compute.batches:
        assert not tasks[0].done()
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(call) for call in calls[1:]]
    await asyncio.sleep(0.01)
    return tasks


def test_what_waits_is_computed_together_in_its_order_within_the_budget():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute)
        calls = [one(batch, *job) for job in [(0, 1), (2, 4), (4, 6), (6, 50), (8, 1)]]
        tasks = await started(compute, calls)
        compute.go.set()
        assert await asyncio.gather(*tasks) == [0, 4, 8, 12, 16]
        assert compute.batches == [[0], [2, 4], [6], [8]]

    asyncio.run(scenario())


def test_little_work_is_done_on_the_event_loop_and_much_in_a_thread():
    async def scenario() -> None:
        threads: list[str] = []

        def compute(items: Sequence[int]) -> list[int | Exception]:
            threads.append("loop" if threading.current_thread() is threading.main_thread() else "thread")
            if items[0] == 2:
                time.sleep(0.5)  # as for a disk: the loop is held up, though the processor is not
            end = time.thread_time() + 0.01 * sum(items)
            while time.thread_time() < end:
                pass
            return list(items)

        for items, expected in (((1, 1, 40, 1), "thread loop thread loop"), ((1, 2, 1), "thread loop thread")):
            threads.clear()
            batch = Batcher(compute, max_batch_cost=100, max_cost_before=1000, at_once_s=0.1)
            for item in items:
                assert await one(batch, item, item) == item
            assert " ".join(threads) == expected
            assert not batch.running_s()

    asyncio.run(scenario())


def test_what_goes_wrong_on_the_event_loop_is_the_requests_alone():
    async def scenario() -> None:
        def compute(items: Sequence[int]) -> list[int | Exception]:
            return [1 // item for item in items]

        batch: Batcher[int, int] = Batcher(compute, max_batch_cost=1, max_cost_before=100, at_once_s=10)
        assert await one(batch, 1, 1) == 1
        with pytest.raises(ZeroDivisionError):
            await one(batch, 0, 1)
        assert await asyncio.gather(one(batch, 1, 1), one(batch, 1, 1)) == [1, 1]

    asyncio.run(scenario())


def test_requests_take_turns_so_that_a_large_one_holds_up_no_other():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_batch_cost=4)
        tasks = await started(compute, [one(batch, 0, 1), batch.run([2, 4, 6, 8, 10, 12], [2] * 6)])
        tasks += [asyncio.create_task(one(batch, 14, 1)), asyncio.create_task(batch.run([16, 18], [1, 2]))]
        await asyncio.sleep(0.01)
        compute.go.set()
        assert await asyncio.gather(*tasks) == [0, [4, 8, 12, 16, 20, 24], 28, [32, 36]]
        # The costlier item of the last request comes first; its results stay in their order.
        assert compute.batches == [[0], [2, 14], [18, 4], [16, 6], [8, 10], [12]]

    asyncio.run(scenario())


def test_an_item_that_fails_fails_its_request_alone_and_the_rest_of_it_is_not_computed():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_batch_cost=3)
        calls = [one(batch, 0, 1), one(batch, 2, 1), batch.run([3, 4, 6], [1, 1, 1]), one(batch, 8, 1)]
        tasks = await started(compute, calls)
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert compute.batches == [[0], [2, 3, 8]]
        assert [results[0], results[1], results[3]] == [0, 4, 16] and isinstance(results[2], ValueError)
        assert batch.waiting()[1] == 0

    asyncio.run(scenario())


def test_a_batch_that_fails_whole_fails_its_requests_and_no_later_one():
    class Failing(Recorder):
        def __call__(self, items: Sequence[int]) -> list[int | Exception]:
            super().__call__(items)
            if 2 in items:
                raise MemoryError("no room")
            return list(items)

    async def scenario() -> None:
        compute = Failing(held=True)
        batch = batcher(compute, max_batch_cost=1)
        tasks = await started(compute, [one(batch, 0, 1), one(batch, 2, 1), one(batch, 4, 1)])
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == 0 and isinstance(results[1], MemoryError) and results[2] == 4
        assert await one(batch, 6, 1) == 6

    asyncio.run(scenario())


def test_what_nobody_waits_for_any_more_is_not_computed():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_batch_cost=2)
        calls = [one(batch, 0, 1), batch.run([2, 4, 6, 8], [2] * 4), one(batch, 10, 1)]
        tasks = await started(compute, calls)
        assert batch.waiting()[1] == 9
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert batch.waiting()[1] == 1  # its place is free at once
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert compute.batches == [[0], [10]] and results[2] == 20

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_request_ends_at_its_deadline_and_is_dropped_between_batches():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_batch_cost=1)
        deadline = time.monotonic() + 1
        calls = [batch.run([0], [1], deadline=deadline), batch.run([2, 4], [1, 1], deadline=deadline), one(batch, 6, 1)]
        tasks = await started(compute, calls)
        for task in tasks[:2]:  # the first while it is computed, the second while it waits
            with pytest.raises(DeadlineError):
                await task
        assert batch.waiting()[1] == 1
        with pytest.raises(DeadlineError):  # nor is one begun whose time is over
            await batch.run([8], [1], deadline=deadline)
        compute.go.set()
        assert await tasks[2] == 12
        assert compute.batches == [[0], [6]]

    asyncio.run(scenario())


def test_what_would_come_after_too_much_is_refused_and_room_comes_back():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_cost_before=20)
        tasks = await started(compute, [one(batch, 0, 10), one(batch, 2, 4), one(batch, 4, 5)])
        with pytest.raises(OverloadedError):
            await one(batch, 6, 2)
        tasks.append(asyncio.create_task(one(batch, 8, 1)))
        compute.go.set()
        assert await asyncio.gather(*tasks) == [0, 4, 8, 16]
        assert await one(batch, 6, 99) == 12  # alone, whatever it costs

    asyncio.run(scenario())


def test_a_large_request_takes_no_place_from_small_ones():
    async def scenario() -> None:
        compute = Recorder(held=True)
        batch = batcher(compute, max_cost_before=30)
        tasks = await started(compute, [one(batch, 0, 1), batch.run([2] * 28, [1] * 28)])
        with pytest.raises(OverloadedError):
            await batch.run([4] * 28, [1] * 28)
        tasks.append(asyncio.create_task(one(batch, 6, 2)))
        compute.go.set()
        assert (await asyncio.gather(*tasks))[2] == 12

    asyncio.run(scenario())


def test_what_cannot_be_done_by_its_deadline_is_refused_at_once_and_told_when_to_come_back():
    async def scenario() -> None:
        compute = Slow()
        batch = batcher(compute, max_batch_cost=1)
        await one(batch, 0, 1)  # so that it knows: 20 ms, or more, for a cost of 1
        compute.go.clear()
        compute.batches.clear()
        tasks = await started(compute, [one(batch, 0, 1), *(one(batch, 2, 1) for _ in range(50))])
        with pytest.raises(OverloadedError, match="waiting") as refused:
            await batch.run([4], [1], deadline=time.monotonic() + 0.5)
        assert not isinstance(refused.value, DeadlineError) and refused.value.retry_after_s >= 51 * 0.02
        tasks.append(asyncio.create_task(batch.run([4], [1], deadline=time.monotonic() + 600)))
        await asyncio.sleep(0)
        assert batch.waiting()[1] == 51
        for task in tasks[1:]:
            task.cancel()
        compute.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
