"""What waits is computed together: while a batch is computed in a thread, the next one gathers.

A batch of little work may be computed on the event loop instead: that is soonest where the thread would wait for
Python's lock at each step (decision 076).

Items wait, not requests: a batch takes an item of each waiting request in turn, so that a request of many items holds
up none of few. What an item costs is a number in the unit of the queue, such as tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve.errors import DeadlineError, OverloadedError

Item = TypeVar("Item")
Result = TypeVar("Result")

DECAY = 0.9
"""Of what was measured of earlier batches, when another is added."""
UNKNOWN_WAIT_S = 1.0
"""Retry-After before any batch has been measured."""
GATHER_TURNS = 4
"""Turns of the event loop before a batch is made up: requests that have arrived by then take so many to wait here."""


@dataclass(eq=False, slots=True)
class _Request(Generic[Item, Result]):
    items: deque[tuple[int, Item, int]]
    """Those that wait: place in the request, item, cost; the costliest first."""
    results: list[Result | None]
    num_missing: int
    future: asyncio.Future[list[Result]]


class Batcher(Generic[Item, Result]):
    """Computes the items of requests in batches, one batch at a time.

    A lone request is computed at once.

    Admission: a request is refused if the cost computed before it is done, its own included, would exceed
    ``max_cost_before`` or take longer than its deadline allows. What comes before it is all that waits or, if less, one
    item of each waiting request per item of the new one, since requests take turns. Within a request the costliest
    items come first, so its next item bounds the rest.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_batch_cost: int,
        max_cost_before: int,
        at_once_s: float = 0.0,
        name: str = "batches",
    ) -> None:
        """``compute`` gives a result, or what went wrong, for each item; it runs in a thread of its own.

        Args:
            compute: of a batch.
            max_batch_cost: a batch costs so much at most, or is a single item.
            max_cost_before: a request is refused where more would be computed until it is done, unless it is alone.
            at_once_s: a batch that takes a processor no longer, by the latest ones, is computed on the event loop.
            name: of the thread.
        """
        self._compute = compute
        self._max_batch_cost = max_batch_cost
        self._max_cost_before = max_cost_before
        self._queue: deque[_Request[Item, Result]] = deque()
        self._waiting = 0  # cost of all items that wait
        self._turn = 0  # cost of the next item of each request that waits
        self._running: int | None = None  # cost of the batch that is being computed
        self._began = 0.0
        self._at_once_s = at_once_s
        self._seen_cost, self._seen_s = 0.0, 0.0
        # Of it, how long the event loop would be held up: in the thread, waiting for Python's lock does not count.
        self._seen_work_s = 0.0
        self._thread = ThreadPoolExecutor(1, name)
        self._tasks: set[asyncio.Task[None]] = set()

    def waiting(self) -> tuple[int, int]:
        """Items that wait, and their cost."""
        return sum(len(request.items) for request in self._queue), self._waiting

    def running_s(self) -> float:
        """For how long the batch under way has been computed; 0 where there is none."""
        return time.monotonic() - self._began if self._running else 0.0

    async def run(self, items: Sequence[Item], costs: Sequence[int], *, deadline: float | None = None) -> list[Result]:
        """The results of a request's items.

        Args:
            items: what is computed, one or more.
            costs: of each, 1 or more.
            deadline: in the clock of ``time.monotonic``; None for no limit.

        Raises:
            OverloadedError: if so much waits that the request is not begun.
            DeadlineError: when the deadline has passed; what was not computed by then never is.
            Exception: what went wrong with an item.
        """
        left_s = None if deadline is None else deadline - time.monotonic()
        self._admit(len(items), sum(costs), left_s)
        loop = asyncio.get_running_loop()
        turns = sorted(zip(range(len(items)), items, costs, strict=True), key=lambda one: -one[2])
        request: _Request[Item, Result] = _Request(deque(turns), [None] * len(items), len(items), loop.create_future())
        self._queue.append(request)
        self._waiting += sum(costs)
        self._turn += turns[0][2]
        timer = None if left_s is None else loop.call_later(left_s, self._expire, request)
        if self._running is None:
            self._running = 0
            task = loop.create_task(self._run_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await request.future
        finally:
            if timer is not None:
                timer.cancel()
            self._withdraw(request)

    def _admit(self, num_items: int, cost: int, left_s: float | None) -> None:
        if left_s is not None and left_s <= 0:
            raise DeadlineError("its time was over before it could be begun; ask again.", retry_after_s=self._wait_s())
        before = min(self._waiting, num_items * self._turn) + (self._running or 0)
        if not before:
            return
        wait_s = self._seconds(before + cost)
        if before + cost > self._max_cost_before or (left_s is not None and wait_s is not None and wait_s > left_s):
            raise OverloadedError("too much is waiting; ask again later.", retry_after_s=self._wait_s())

    def _wait_s(self) -> float:
        seconds = self._seconds(self._waiting + (self._running or 0))
        return UNKNOWN_WAIT_S if seconds is None else seconds

    def _seconds(self, cost: int) -> float | None:
        """How long a cost takes, by the latest batches; None before the first."""
        return cost * self._seen_s / self._seen_cost if self._seen_cost else None

    def _expire(self, request: _Request[Item, Result]) -> None:
        if not request.future.done():
            self._withdraw(request)
            request.future.set_exception(
                DeadlineError("was not answered within its time; ask again later.", retry_after_s=self._wait_s())
            )

    def _withdraw(self, request: _Request[Item, Result]) -> None:
        """Nothing more of it is computed."""
        if request.items:
            self._turn -= request.items[0][2]
            self._waiting -= sum(cost for _, _, cost in request.items)
            request.items.clear()

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                for _ in range(GATHER_TURNS):
                    await asyncio.sleep(0)
                if not (batch := self._next_batch()):
                    break
                self._began = time.monotonic()
                items = [item for _, _, item in batch]
                if is_little := self._is_little():
                    results, work_s = self._worked(items)
                else:
                    results, work_s = await loop.run_in_executor(self._thread, self._worked, items)
                took_s = time.monotonic() - self._began
                self._seen_cost = DECAY * self._seen_cost + (self._running or 0)
                self._seen_s = DECAY * self._seen_s + took_s
                self._seen_work_s = DECAY * self._seen_work_s + (took_s if is_little else work_s)
                for (request, place, _), result in zip(batch, results, strict=True):
                    _deliver(request, place, result)
                self._running = 0
        finally:
            self._running = None

    def _is_little(self) -> bool:
        """Whether the batch that is next is computed on the event loop."""
        return 0 < self._seen_cost * self._at_once_s >= (self._running or 0) * self._seen_work_s

    def _worked(self, items: Sequence[Item]) -> tuple[Sequence[Result | Exception], float]:
        """What was computed, and the processor's seconds for it."""
        began = time.thread_time()
        results: Sequence[Result | Exception]
        try:
            results = self._compute(items)
        except Exception as error:
            results = [error] * len(items)
        return results, time.thread_time() - began

    def _next_batch(self) -> list[tuple[_Request[Item, Result], int, Item]]:
        batch: list[tuple[_Request[Item, Result], int, Item]] = []
        total = 0
        while self._queue:
            request = self._queue[0]
            if request.future.done():  # its client has gone, its time is over, or an item of it went wrong
                self._withdraw(request)
            if not request.items:
                self._queue.popleft()
                continue
            place, item, cost = request.items[0]
            if batch and total + cost > self._max_batch_cost:
                break
            self._queue.popleft()
            request.items.popleft()
            self._waiting -= cost
            self._turn -= cost
            batch.append((request, place, item))
            total += cost
            if request.items:
                self._turn += request.items[0][2]
                self._queue.append(request)
        self._running = total
        return batch


def _deliver(request: _Request[Item, Result], place: int, result: Result | Exception) -> None:
    if request.future.done():
        return
    if isinstance(result, Exception):
        request.future.set_exception(result)
        return
    request.results[place] = result
    request.num_missing -= 1
    if not request.num_missing:
        request.future.set_result(request.results)  # type: ignore[arg-type]  # none is missing
