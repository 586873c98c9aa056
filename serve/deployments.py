"""A replica: it speaks HTTP, and holds the model and the indexes.

Three queues (``serve.batching``), each with a thread of its own, so that what takes long holds up nothing else:

    long     questions of many letters are tokenised; others are when they come
    model    what was tokenised is embedded; by its embedding, the graph of the index is searched
    scans    the rows of the index are gone through: for accessions, filters, exact answers, and to leave out own rows

Explanations have a thread too, and let searches go first (``serve.explaining``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, cast

from starlette.types import ASGIApp

from protclip.embeddings.reading import METADATA
from protclip.errors import ProtclipError
from protclip.index.manifest import read_index_manifest
from protclip.questions import DEFAULTS, Answer, Asked, Explanation, Options, Protein, Question, Row
from protclip.retrieval import Retriever
from serve.answers import NamedIndex
from serve.api import make_api
from serve.batching import Batcher
from serve.encoder import Encoder, Search
from serve.explaining import Explainer
from serve.guard import guard
from serve.indexes import Indexes, State
from serve.keys import NO_KEYS
from serve.loopback import keep_to_loopback
from serve.metrics import CountRequests
from serve.queues import MAX_SCANS, SCANS_AT_ONCE, One, deadline, each_alone_on_error, scan_cost
from serve.settings import DEFAULT_INDEX, AppArgs, read_user_config


class Replica(Encoder):
    """Model and indexes behind the routes."""

    indexes: Indexes

    def __init__(self, args: AppArgs, fingerprint: str) -> None:
        """Without model and indexes; ``reconfigure`` loads them."""
        keep_to_loopback()
        super().__init__(args, fingerprint)
        self._told: object = None
        self._changing: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: object) -> None:
        """Ray Serve calls it before the replica answers, and again whenever ``user_config`` was changed.

        From the second time on it returns at once and never raises: until it returns HAProxy is told of one replica
        less, and Serve ends a replica that raises. The indexes change in the background; ``state`` says how that went.

        Raises:
            ProtclipError: if the model or an index cannot be loaded, or they do not belong together.
        """
        is_first = self._told is None
        self._told = user_config
        if is_first:
            await asyncio.to_thread(self._start, user_config)
        elif self._changing is None:
            self._changing = asyncio.create_task(self._change())

    async def _change(self) -> None:
        """Change the indexes to what was told last."""
        done = None
        while done is not self._told:
            done = self._told
            await asyncio.to_thread(self.indexes.change, done)
        self._changing = None

    def _start(self, user_config: object) -> None:
        paths = list(read_user_config(user_config).indexes.values())
        own_dtype = read_index_manifest(paths[0]).dtype
        model = self._load_model(own_dtype)
        self.indexes = Indexes(model, dtype=None if self.args.dtype else own_dtype)
        # All of a request at once, so that the rows are gone through once for its filter.
        self._scans: Batcher[tuple[Sequence[Question | Asked | str], Search], list[Answer | Row]] = Batcher(
            self._scan, max_batch_cost=SCANS_AT_ONCE, max_cost_before=MAX_SCANS, name="scans"
        )
        self.indexes.load(user_config)

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray Serve calls it by this name, after __init__
        args = self.args
        api = make_api(self, args.limits, stuck_after_s=args.stuck_after_s, secured=args.keys != NO_KEYS)
        return CountRequests(guard(api, args), self.metrics)

    async def search(
        self,
        questions: Sequence[Question],
        options: Options,
        *,
        index: str = DEFAULT_INDEX,
        allow_partial: bool = False,  # noqa: ARG002  # an index is whole
    ) -> list[Answer]:
        """The answer to each question, all from one index, though another may take its place meanwhile.

        Raises:
            NotFoundError: for an index that is not served, or an accession that it does not hold.
        """
        search = Search(self.indexes.retriever(index), options)
        through_rows = options.where is not None or options.exact or options.exclude_self or options.map
        found: dict[int, Any] = {i: one for i, one in enumerate(questions) if one.accession is not None}
        if places := [i for i in range(len(questions)) if i not in found]:
            prepared = await self._prepare([questions[i] for i in places])
            computed = await self._compute(prepared, None if through_rows else search)
            found |= zip(places, computed, strict=True)
        if places := [i for i, one in found.items() if not isinstance(one, Answer)]:
            found |= zip(places, await self._run_scans([found[i] for i in places], search), strict=True)
        return [found[i] for i in range(len(questions))]

    async def explain(
        self,
        text: str,
        *,
        sequence: str | None,
        accession: str | None,
        index: str = DEFAULT_INDEX,
        window: int | None,
        stride: int,
    ) -> Explanation:
        """What each residue has to do with a text.

        Raises:
            RequestError: for a window that cannot be, or for an accession where there are no sequences.
            NotFoundError: for an accession that the index or the sequences lack, or have of another release.
            OverloadedError: where too much is under way.
        """
        sequence_hash = None
        if sequence is None:
            self.check_sequences(accession)
            sequence_hash = (await self._row(accession or "", index))["sequence_hash"]
        return await self.explain_protein(
            text, sequence=sequence, accession=accession, sequence_hash=sequence_hash, window=window, stride=stride
        )

    async def protein(self, accession: str, *, index: str = DEFAULT_INDEX) -> Protein:
        """What an index knows of a protein, and its sequence.

        Raises:
            NotFoundError: if it does not hold it, or the index is not served.
        """
        row = await self._row(accession, index)
        row["sequence"] = self.find_sequence(accession, row["sequence_hash"])
        del row["sequence_hash"]
        return cast(Protein, row)

    def describe_indexes(self) -> list[NamedIndex]:
        """The indexes, ``default`` first, where there is one."""
        return self.indexes.describe()

    def index_dimension(self, index: str) -> int:
        """Width of an index's vectors.

        Raises:
            NotFoundError: for an index that is not served.
        """
        return self.indexes.dimension(index)

    def refused(self) -> str | None:
        """For what kind of error the last change of the indexes was refused."""
        error = self.indexes.refused
        return None if error is None else type(error).__name__

    async def check_indexes(self, user_config: object) -> str | None:
        """Why a change would be refused as things are, as far as can be seen without loading anything."""
        try:
            await asyncio.to_thread(self.indexes.check, user_config)
        except ProtclipError as error:
            return f"{type(error).__name__}: {error}"
        return None

    async def state(self) -> State:
        """What whoever changes the indexes wants to know."""
        return self.indexes.state(told=self._told, changing=self._changing is not None)

    def _queues(self) -> tuple[Batcher[Any, Any] | Explainer, ...]:
        return *super()._queues(), self._scans

    async def _run_scans(self, asked: Sequence[Question | Asked | str], search: Search) -> list[Answer | Row]:
        cost = scan_cost(len(asked), search.options.where)
        (done,) = await self._scans.run([(asked, search)], [cost], deadline=deadline())
        return done

    async def _row(self, accession: str, index: str) -> dict[str, Any]:
        """What an index knows of a protein, the hash of its sequence too; raises NotFoundError."""
        (row,) = await self._run_scans([accession], Search(self.indexes.retriever(index), DEFAULTS))
        return cast(dict[str, Any], row)

    def _find(self, asked: Sequence[Asked], searches: Sequence[Search | None]) -> list[Asked | Answer | Exception]:
        """The answers, of equal searches together; without a search what was asked, as it is."""
        results: list[Asked | Answer | Exception] = list(asked)
        for search, places in _alike(searches).items():
            find = partial(search.retriever.find, options=search.options)
            answers = each_alone_on_error(find, [asked[i] for i in places])
            for i, answer in zip(places, answers, strict=True):
                results[i] = answer
        return results

    def _scan(
        self, items: Sequence[tuple[Sequence[Question | Asked | str], Search]]
    ) -> list[list[Answer | Row] | Exception]:
        """The answers of each request; what went wrong with the first that has none, where one has none."""
        results: list[Any] = [one for asked, _ in items for one in asked]
        searches = [search for asked, search in items for _ in asked]

        def replaced(kind: type, function: Callable[[Retriever, Sequence[Any]], Sequence[Any]]) -> None:
            for retriever, places in _alike(
                search.retriever if isinstance(result, kind) else None
                for result, search in zip(results, searches, strict=True)
            ).items():
                done = each_alone_on_error(partial(function, retriever), [results[i] for i in places])
                for i, result in zip(places, done, strict=True):
                    results[i] = result

        replaced(str, lambda retriever, accessions: [retriever.row(one, METADATA.names) for one in accessions])
        replaced(Question, Retriever.embed)
        places = [i for i, result in enumerate(results) if isinstance(result, Asked)]
        found = self._find([results[i] for i in places], [searches[i] for i in places])
        for i, result in zip(places, found, strict=True):
            results[i] = result
        left = iter(results)
        requests = [list(islice(left, len(asked))) for asked, _ in items]
        return [next((one for one in its if isinstance(one, Exception)), its) for its in requests]


def _alike(items: Iterable[One | None]) -> dict[One, list[int]]:
    """The places of each item."""
    places: dict[One, list[int]] = {}
    for i, one in enumerate(items):
        if one is not None:
            places.setdefault(one, []).append(i)
    return places
