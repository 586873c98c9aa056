"""A shard: a replica that holds some subindexes of the index and answers gateways.

Two queues (``serve.batching``), each with a thread of its own:

    graphs   the subindexes' graphs are searched
    scans    rows are gone through: for accessions, filters, exact answers, and questions' own rows
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from protclip.embeddings.reading import METADATA
from protclip.errors import DataError, ProtclipError
from protclip.hits import own_rows
from protclip.index.index import Index
from protclip.index.manifest import read_index_manifest
from protclip.questions import Question
from serve.batching import Batcher, Item, Result
from serve.calls import Call, answer
from serve.loopback import keep_to_loopback
from serve.metrics import Load
from serve.queues import MAX_SCANS, SCANS_AT_ONCE, SWITCH_S, deadline, scan_cost

MAX_QUESTIONS, QUESTIONS_AT_ONCE = 10_000, 64
"""Questions that may wait for the graphs, and those that are searched for together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """What ``Index.search`` is asked beside the vectors."""

    k: int
    where: str | None
    exact: bool
    columns: tuple[str, ...] | None
    """That are shown of what is found."""
    map: bool
    """Whether the vectors of what is found are given too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A request's questions."""

    vectors_ND: NDArray[np.float32]
    how: How


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a shard found for the questions of a request."""

    scores_NK: NDArray[np.float32]
    rows_NK: NDArray[np.int64]
    """Counted through the whole index."""
    table: pa.Table
    """What is shown of them, row by row."""
    vectors_MD: NDArray[np.float32] | None
    """Of them, row by row, for a map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookUp:
    """What is to be known of a request's questions before they can be searched for."""

    questions: Sequence[Question]
    exclude_self: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a shard knows of the questions of a request."""

    vectors: list[NDArray[np.float32] | None]
    """Of each that asks with an accession which the shard has."""
    own: list[NDArray[np.int64]]
    """Rows of the shard that are the question itself, where they are to be left out."""


def shard_holds(fingerprint: str, subindexes: range) -> str:
    """Subindexes of an index, in one word."""
    return f"{fingerprint}[{subindexes.start}:{subindexes.stop}]"


class Shard:
    """Some subindexes of the index."""

    def __init__(self, index: str, fingerprint: str, subindexes: range) -> None:
        """Load them.

        Args:
            index: path or URL.
            fingerprint: of the index when it was shared out.
            subindexes: their numbers.

        Raises:
            DataError: if another index is there now, or it is damaged.
        """
        keep_to_loopback()
        if (found := read_index_manifest(index).fingerprint) != fingerprint:
            raise DataError(
                f"{index}: is the index {found}, and was {fingerprint} when the application was deployed; deploy again."
            )
        self.index = Index.load(index, subindexes=subindexes)
        self._holds = shard_holds(fingerprint, subindexes)
        self._graphs: Batcher[Search, Found] = Batcher(
            self._search, max_batch_cost=QUESTIONS_AT_ONCE, max_cost_before=MAX_QUESTIONS, name="graphs"
        )
        self._scans: Batcher[Any, Any] = Batcher(
            self._scan, max_batch_cost=SCANS_AT_ONCE, max_cost_before=MAX_SCANS, name="scans"
        )
        sys.setswitchinterval(SWITCH_S)

    async def search(self, call: Call, search: Search) -> Found | Exception:
        """The nearest rows to each question."""
        num_questions, how = len(search.vectors_ND), search.how
        if how.where is None and not how.exact and not how.map:
            return await self._answer(call, self._graphs, search, num_questions)
        return await self._answer(call, self._scans, search, scan_cost(num_questions, how.where))

    async def look_up(self, call: Call, look_up: LookUp) -> Known | Exception:
        """What is known of questions."""
        return await self._answer(call, self._scans, look_up, len(look_up.questions))

    async def row(self, call: Call, accession: str) -> list[dict[str, Any]] | Exception:
        """The row of an accession, with the hash of its sequence; none where another shard has it."""
        return await self._answer(call, self._scans, accession, 1)

    def load(self) -> Load:
        """What there is to do at this moment."""
        items, cost = self._graphs.waiting()
        scans, cost_of_scans = self._scans.waiting()
        oldest_s = max(self._graphs.running_s(), self._scans.running_s())
        return Load(num_items=items + scans, num_tokens=cost + cost_of_scans, num_explanations=0, batch_s=oldest_s)

    async def _answer(self, call: Call, queue: Batcher[Item, Result], item: Item, cost: int) -> Result | Exception:
        async def work() -> Result:
            (done,) = await queue.run([item], [cost], deadline=deadline())
            return done

        return await answer(call, self._holds, work)

    def _search(self, searches: Sequence[Search]) -> list[Found | Exception]:
        """Those that ask in the same way together."""
        results: dict[int, Found | Exception] = {}
        alike: dict[How, list[int]] = {}
        for i, search in enumerate(searches):
            alike.setdefault(search.how, []).append(i)
        for how, places in alike.items():
            vectors = [searches[i].vectors_ND for i in places]
            try:
                scores, rows = self.index.search(
                    np.concatenate(vectors), how.k, where=how.where, exact=how.exact or None
                )
            except ProtclipError as error:
                results |= dict.fromkeys(places, error)
                continue
            ends = np.cumsum([len(some) for some in vectors])[:-1]
            for i, its_scores, its_rows in zip(places, np.split(scores, ends), np.split(rows, ends), strict=True):
                table = self.index.table(its_rows.ravel(), how.columns)
                vectors_MD = self.index.vectors(its_rows.ravel()) if how.map else None
                results[i] = Found(scores_NK=its_scores, rows_NK=its_rows, table=table, vectors_MD=vectors_MD)
        return [results[i] for i in range(len(searches))]

    def _scan(self, items: Sequence[Search | LookUp | str]) -> list[Any]:
        searches = [(i, item) for i, item in enumerate(items) if isinstance(item, Search)]
        results: dict[int, Any] = dict(
            zip([i for i, _ in searches], self._search([search for _, search in searches]), strict=True)
        )
        for i, item in enumerate(items):
            try:
                if isinstance(item, LookUp):
                    results[i] = self._look_up(item)
                elif isinstance(item, str):
                    rows, _ = self.index.find("accession", [item])
                    results[i] = self.index.rows(rows[:1], METADATA.names)
            except ProtclipError as error:
                results[i] = error
        return [results[i] for i in range(len(items))]

    def _look_up(self, look_up: LookUp) -> Known:
        names = list(dict.fromkeys(q.accession for q in look_up.questions if q.accession is not None))
        rows, numbers = self.index.find("accession", names)
        found = {names[number]: vector for vector, number in zip(self.index.vectors(rows), numbers, strict=True)}
        own = own_rows(self.index, look_up.questions) if look_up.exclude_self else []
        return Known(vectors=[found.get(q.accession or "") for q in look_up.questions], own=own)
