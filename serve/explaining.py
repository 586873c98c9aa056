"""Explanations beside searches: in a thread of their own, one after the other, a few passes at a time.

An explanation is many passes of one protein. They are computed in chunks of some milliseconds; between two of these an
explanation ends whose client has gone or whose time is over. Searches go first before each matrix product, since one
pass of a long protein takes hundreds of milliseconds. An explanation costs tokens × passes. By how long such a cost
takes it is decided with which stride it is computed, and whether it is begun at all.

Shapes: P passes, n of a chunk, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from protclip.explanation import Steps
from protclip.questions import Explanation
from protclip.retrieval import Retriever
from serve.errors import DeadlineError, OverloadedError

MOST, LEAST = 0.7, 0.25
"""Shares of the seconds to an answer: a lone explanation is computed for the first, so that another may wait for it;
one that would be computed for less than the second, since others come before it, is refused."""
ENOUGH = 0.97
"""Of these seconds: after it nothing finer is begun, so that the answer is written in time."""
CHUNK_S = 0.01
"""For which a chunk is computed; a single pass may take longer."""
PATIENCE = 2.0
"""Times that by which a chunk lets searches go first, at most."""
LOOK_S = 0.0005
"""Between two looks at the searches."""
TEXT_PASSES = 2
"""What the text and its segment cost, in passes of the protein."""
DECAY = 0.98
"""Of what was measured of earlier chunks, when another is added."""
FACTORS = (27, 9, 3, 1)
"""Of the stride, one after the other: what is computed for one is of use for the next (``Passes``)."""
MEASURED = "ACDEFGHIKLMNPQRSTVWY" * 12


class Explainer:
    """Computes explanations: of as many windows as there is time for."""

    def __init__(
        self,
        retriever: Retriever,
        *,
        explain_s: float,
        is_searching: Callable[[], bool],
        use_threads: Callable[[int], None],
        count_tokens: Callable[[int], None],
    ) -> None:
        """Two passes of a protein are computed now, to know how long they take.

        Args:
            retriever: with a model.
            explain_s: seconds to an answer.
            is_searching: whether what goes first is being computed; from any thread.
            use_threads: called before so many tokens are computed, in the thread that does.
            count_tokens: called after.
        """
        self._retriever = retriever
        self._explain_s = explain_s
        self._is_searching = is_searching
        self._use_threads = use_threads
        self._count_tokens = count_tokens
        self._thread = ThreadPoolExecutor(1, "explanations")
        self._thread_id = self._thread.submit(threading.get_ident).result()
        self._turn = asyncio.Lock()  # they are let in as they come
        self._left: dict[Steps, int] = {}  # tokens of those that are under way
        self._began: float | None = None
        self._seen_tokens = 0.0
        self._seen_s = 0.0  # with what was left to searches
        self._computed_s = 0.0
        self._patience_s = 0.0  # of the chunk under way
        steps = retriever.explain_in_steps(MEASURED, "protein")
        self._thread.submit(steps.embed, [None]).result()  # for what torch does once
        self._thread.submit(self._embed, steps, [None]).result()
        for module in steps.model.model.protein_encoder.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(self._let_searches_go_first)

    @property
    def num_under_way(self) -> int:
        """Explanations that are computed or wait."""
        return len(self._left)

    def running_s(self) -> float:
        """For how long the chunk under way has been computed; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

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
        """As ``Retriever.explain``, with a larger stride where there is no time for all windows.

        Args:
            sequence: in one-letter code.
            text: what is explained.
            accession: whose sequence it is, for the answer.
            window: as of ``Retriever.explain``.
            stride: the least.
            deadline: in the clock of ``time.monotonic``; None for no limit.

        Raises:
            RequestError: as ``Retriever.explain``.
            OverloadedError: where too much is under way.
            DeadlineError: when the deadline has passed.
        """
        steps = self._retriever.explain_in_steps(sequence, text, accession=accession, window=window, stride=stride)
        came = time.monotonic()
        left_s = None if deadline is None else deadline - came
        in_s = self._explain_s if left_s is None else min(self._explain_s, left_s)
        steps = self._in_time(steps, in_s)
        self._left[steps] = (TEXT_PASSES + len(steps.passes.all)) * len(steps.passes.ids_L)
        try:
            async with asyncio.timeout(left_s), self._turn:
                return await self._compute(steps, came + ENOUGH * in_s)
        except TimeoutError:
            raise DeadlineError("was not answered within its time; ask again later.") from None
        finally:
            del self._left[steps]

    async def _compute(self, steps: Steps, end: float) -> Explanation:
        """With the stride of the steps; at the end, with the least for which all is computed."""
        run = partial(asyncio.get_running_loop().run_in_executor, self._thread)
        text_side = await run(self._text_side, steps)
        at_once = max(1, int(CHUNK_S / self._pass_s(steps, self._computed_s)))
        latest = end - at_once * self._pass_s(steps, self._seen_s)
        vectors: dict[int | None, np.ndarray] = {}
        done: Steps | None = None
        for factor in FACTORS:
            if factor > 1 and factor * steps.passes.stride >= steps.passes.num_residues:
                continue  # of a single window nothing can be read
            finer = _with_stride(steps, factor * steps.passes.stride)
            wanted = [one for one in finer.passes.all if one not in vectors]
            while wanted and (done is None or time.monotonic() < latest):
                chunk, wanted = wanted[:at_once], wanted[at_once:]
                vectors |= zip(chunk, await run(self._embed, steps, chunk), strict=True)
                self._left[steps] = max(0, self._left[steps] - len(chunk) * len(steps.passes.ids_L))
            if wanted:
                break
            done = finer
        assert done is not None
        return done.answer(text_side, np.stack([vectors[one] for one in done.passes.all]))

    def _in_time(self, steps: Steps, in_s: float) -> Steps:
        """With the stride that was asked, or the least with which all is computed in time.

        Raises:
            OverloadedError: if too little would be.
        """
        wait_s = sum(self._left.values()) * self._seen_s / self._seen_tokens
        seconds = min(MOST * in_s, in_s - wait_s)
        if seconds < LEAST * in_s:
            raise OverloadedError(
                f"{len(self._left)} explanations are under way; ask again later.",
                retry_after_s=wait_s - (1 - LEAST) * in_s,
            )
        num_windows = max(1.0, seconds / self._pass_s(steps, self._seen_s) - TEXT_PASSES - 1)
        return _with_stride(steps, max(steps.passes.stride, math.ceil(steps.passes.num_residues / num_windows)))

    def _pass_s(self, steps: Steps, seen_s: float) -> float:
        """Seconds of a pass, by those of what was measured."""
        return len(steps.passes.ids_L) * seen_s / self._seen_tokens

    def _text_side(self, steps: Steps) -> tuple[np.ndarray, np.ndarray | None]:
        self._use_threads(len(steps.passes.ids_L))
        return steps.text_side()

    def _embed(self, steps: Steps, some: Sequence[int | None]) -> np.ndarray:
        num_tokens = len(some) * len(steps.passes.ids_L)
        self._began = began = time.monotonic()
        patience_s = PATIENCE * num_tokens * self._computed_s / self._seen_tokens if self._seen_tokens else 0.0
        self._patience_s = patience_s
        try:
            self._use_threads(num_tokens)
            embedded_nD = steps.embed(some)
            took_s = time.monotonic() - began
        finally:
            self._began, left_s, self._patience_s = None, self._patience_s, 0.0
        self._count_tokens(num_tokens)
        self._seen_tokens = DECAY * self._seen_tokens + num_tokens
        self._seen_s = DECAY * self._seen_s + took_s
        self._computed_s = DECAY * self._computed_s + took_s - (patience_s - left_s)
        return embedded_nD

    def _let_searches_go_first(self, *_: object) -> None:
        """Before a matrix product: of a chunk, as long as the chunk's patience lasts; of a search, at once."""
        if self._patience_s <= 0 or threading.get_ident() != self._thread_id or not self._is_searching():
            return
        began = time.monotonic()
        while self._is_searching() and time.monotonic() < began + self._patience_s:
            time.sleep(LOOK_S)
        self._patience_s -= time.monotonic() - began


def _with_stride(steps: Steps, stride: int) -> Steps:
    return replace(steps, passes=replace(steps.passes, stride=stride))
