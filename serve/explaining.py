"""Explanations beside searches: in a thread of their own, a few windows at a time, no more than take some seconds.

An explanation is many passes of one protein. They wait as the items of other queues do (``serve.batching``), in chunks
of a few milliseconds each: explanations take turns, one whose client has gone goes no further, and before a chunk is
begun searches are let go first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from protclip.explanation import Steps
from protclip.questions import Explanation
from protclip.retrieval import Retriever
from serve.batching import Batcher
from serve.errors import OverloadedError

MAX_UNDER_WAY = 4
"""Explanations under way, the one that is computed among them."""
CHUNK_S = 0.01
"""About as long a chunk takes."""
PATIENCE = 2.0
"""Times a chunk's own time that it waits, at most, while searches are computed."""
POLL_S = 0.0005
"""Between two looks at the searches."""
DECAY = 0.98
"""Of what was measured of earlier chunks, when another is added."""
ALL = 2**62
"""More than any explanation costs: admission is by count and time."""


class Explainer:
    """Computes explanations, each within some seconds: where there is not the time for all windows, for fewer."""

    def __init__(
        self,
        retriever: Retriever,
        *,
        explain_s: float,
        is_busy: Callable[[], bool],
        use_threads: Callable[[int], None],
    ) -> None:
        """The first chunk's size and the first stride come from a short pass that is timed now.

        Args:
            retriever: with a model.
            explain_s: seconds in which one is computed.
            is_busy: whether what goes first is being computed.
            use_threads: called in the thread with the number of tokens, before they are computed.
        """
        self._retriever = retriever
        self._explain_s = explain_s
        self._is_busy = is_busy
        self._use_threads = use_threads
        self._under_way = 0
        self._seen_tokens, self._seen_s, self._busy_s = 0.0, 0.0, 0.0
        self._queue: Batcher[Callable[[], Any], Any] = Batcher(
            self._compute, max_batch_cost=1, max_cost_before=ALL, name="explanations"
        )

    async def explain(
        self,
        sequence: str,
        text: str,
        *,
        accession: str | None,
        window: int | None,
        stride: int,
        deadline: float | None,
    ) -> Explanation:
        """As ``Retriever.explain``, with a larger stride where all windows would take too long.

        Raises:
            RequestError: as there.
            OverloadedError: where too many are under way.
            DeadlineError: as ``Batcher.run``.
        """
        steps = self._retriever.explain_in_steps(sequence, text, accession=accession, window=window, stride=stride)
        if self._under_way >= MAX_UNDER_WAY:
            raise OverloadedError(
                f"{self._under_way} explanations are under way; ask again later.", retry_after_s=self._queue.wait_s()
            )
        self._under_way += 1
        try:
            num_tokens = len(steps.passes.ids_L)
            if not self._seen_tokens:
                await self._queue.run([partial(self._measure, steps)], [num_tokens], deadline=deadline)
            steps = replace(steps, passes=replace(steps.passes, stride=self._stride(steps, deadline)))
            at_once = max(1, int(CHUNK_S * self._seen_tokens / self._busy_s / num_tokens))
            starts = range(0, len(steps.passes), at_once)
            chunks = [partial(self._embed, steps, start, min(start + at_once, len(steps.passes))) for start in starts]
            costs = [num_tokens * (chunk.args[2] - chunk.args[1]) for chunk in chunks]
            text_side, *chunks_PD = await self._queue.run(
                [partial(self._text_side, steps), *chunks], [2 * num_tokens, *costs], deadline=deadline
            )
            return steps.answer(text_side, np.concatenate(chunks_PD))
        finally:
            self._under_way -= 1

    def _stride(self, steps: Steps, deadline: float | None) -> int:
        """That which was asked, or a larger one with which all is computed in time."""
        seconds = self._explain_s
        if deadline is not None:
            seconds = min(seconds, (deadline - time.monotonic()) / 2)
        passes = steps.passes
        affordable = seconds / self._under_way * self._seen_tokens / self._seen_s / len(passes.ids_L)
        return max(passes.stride, math.ceil(passes.num_residues / max(1.0, affordable - 1)))

    def _text_side(self, steps: Steps) -> Any:
        self._use_threads(len(steps.passes.ids_L))
        return steps.text_side()

    def _compute(self, items: Sequence[Callable[[], Any]]) -> list[Any]:
        return [item() for item in items]

    def _measure(self, steps: Steps) -> None:
        """A pass for what is done once, and one that is timed."""
        self._use_threads(len(steps.passes.ids_L))
        steps.embed(0, 1)
        self._embed(steps, 0, 1)

    def _embed(self, steps: Steps, start: int, end: int) -> np.ndarray:
        num_tokens = (end - start) * len(steps.passes.ids_L)
        came = time.monotonic()
        if self._seen_tokens:
            latest = came + PATIENCE * num_tokens * self._busy_s / self._seen_tokens
            while self._is_busy() and time.monotonic() < latest:
                time.sleep(POLL_S)
        began = time.monotonic()
        self._use_threads(num_tokens)
        embedded_PD: np.ndarray = steps.embed(start, end)
        now = time.monotonic()
        self._seen_tokens = DECAY * self._seen_tokens + num_tokens
        self._seen_s = DECAY * self._seen_s + now - came
        self._busy_s = DECAY * self._busy_s + now - began
        return embedded_PD
