"""What waits is computed together: while a batch is computed in a thread, the next one gathers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve.errors import OverloadedError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Job, Result]):
    job: Job
    tokens: int
    future: asyncio.Future[Result]


class Batcher(Generic[Job, Result]):
    """Runs jobs in batches, one batch at a time, in the order in which they came.

    A lone job is computed at once; a job whose caller has gone is dropped.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Result | Exception]],
        *,
        tokens_per_batch: int,
        max_waiting_tokens: int,
    ) -> None:
        """``compute`` runs in a thread of its own and gives a result, or what went wrong, for each job.

        Args:
            compute: of a batch.
            tokens_per_batch: a batch has so many at most, or a single job.
            max_waiting_tokens: with so many waiting, a further job is refused.
        """
        self._compute = compute
        self._tokens_per_batch = tokens_per_batch
        self._max_waiting_tokens = max_waiting_tokens
        self._waiting: deque[_Waiting[Job, Result]] = deque()
        self._waiting_tokens = 0
        self._running = False
        self._thread = ThreadPoolExecutor(1, "batches")
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, job: Job, tokens: int) -> Result:
        """The result of a job.

        Args:
            job: what is computed.
            tokens: what it costs.

        Raises:
            OverloadedError: if too much waits.
            Exception: what went wrong with this job.
        """
        if self._waiting and self._waiting_tokens + tokens > self._max_waiting_tokens:
            raise OverloadedError("too much is waiting; ask again in a moment.")
        waiting = _Waiting(job, tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_tokens += tokens
        if not self._running:
            self._running = True
            task = asyncio.create_task(self._run_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        result: Result = await waiting.future
        return result

    def waiting(self) -> tuple[int, int]:
        """Jobs that wait, and their tokens."""
        return len(self._waiting), self._waiting_tokens

    async def _run_all(self) -> None:
        try:
            while batch := self._next_batch():
                results: Sequence[Result | Exception]
                try:
                    results = await asyncio.get_running_loop().run_in_executor(
                        self._thread, self._compute, [one.job for one in batch]
                    )
                except Exception as error:
                    results = [error] * len(batch)
                for one, result in zip(batch, results, strict=True):
                    if one.future.done():
                        continue
                    if isinstance(result, Exception):
                        one.future.set_exception(result)
                    else:
                        one.future.set_result(result)
        finally:
            self._running = False

    def _next_batch(self) -> list[_Waiting[Job, Result]]:
        batch: list[_Waiting[Job, Result]] = []
        tokens = 0
        while self._waiting and (not batch or tokens + self._waiting[0].tokens <= self._tokens_per_batch):
            one = self._waiting.popleft()
            self._waiting_tokens -= one.tokens
            if not one.future.done():  # else its caller has gone
                batch.append(one)
                tokens += one.tokens
        return batch
