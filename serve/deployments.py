"""A replica: it speaks HTTP, and holds the model and the index.

Three queues (``serve.batching``), each with a thread of its own, so that what takes long holds up nothing else:

    long     questions of many letters are tokenised; others are when they come
    model    what was tokenised is embedded; by its embedding, the graph of the index is searched
    scans    the rows of the index are gone through: for accessions, filters, exact answers, and to leave out own rows
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, cast

from starlette.types import ASGIApp

from protclip import files
from protclip.index.embeddings import Dtype
from protclip.index.filters import Filter
from protclip.manifest import FILE_NAME
from protclip.questions import Answer, Asked, Options, Question, Row
from serve.answers import NamedIndex, describe_index
from serve.api import make_api
from serve.batching import Batcher
from serve.encoder import Encoder, deadline, each_alone_on_error
from serve.guard import guard
from serve.keys import NO_KEYS
from serve.loopback import keep_to_loopback
from serve.metrics import CountRequests
from serve.settings import AppArgs

MAX_SCANS, SCANS_AT_ONCE = 1_000, 32
"""Scans that may wait, and those that are done together: each question of a request is one, and its filter more."""
LETTERS_OF_SCAN = 10
"""So many letters of a filter, at least a condition, cost as much as a scan."""


class Replica(Encoder):
    """Model and index behind the routes."""

    def __init__(self, args: AppArgs, fingerprint: str, dtype: Dtype) -> None:
        keep_to_loopback()
        super().__init__(args, fingerprint, dtype, args.index)
        self._written = files.modified(files.join(args.index, FILE_NAME))
        # All of a request at once, so that the rows are gone through once for its filter.
        self._scans: Batcher[tuple[Sequence[Question | Asked | str], Options | None], list[Answer | Row]] = Batcher(
            self._scan, max_batch_cost=SCANS_AT_ONCE, max_cost_before=MAX_SCANS, name="scans"
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray Serve calls it by this name, after __init__
        args = self.args
        api = make_api(self, args.limits, stuck_after_s=args.stuck_after_s, secured=args.keys != NO_KEYS)
        return CountRequests(guard(api, args), self.metrics)

    async def search(
        self, questions: Sequence[Question], options: Options, *, allow_partial: bool = False
    ) -> list[Answer]:
        """The answer to each question."""
        del allow_partial  # the index is whole
        through_rows = options.where is not None or options.exact or options.exclude_self
        found: dict[int, Any] = {i: one for i, one in enumerate(questions) if one.accession is not None}
        if places := [i for i in range(len(questions)) if i not in found]:
            prepared = await self._prepare([questions[i] for i in places])
            computed = await self._compute(prepared, None if through_rows else options)
            found |= zip(places, computed, strict=True)
        if places := [i for i, one in found.items() if not isinstance(one, Answer)]:
            found |= zip(places, await self._run_scans([found[i] for i in places], options), strict=True)
        return [found[i] for i in range(len(questions))]

    async def protein(self, accession: str) -> Row:
        """What the index knows of a protein.

        Raises:
            NotFoundError: if it does not hold it.
        """
        (row,) = await self._run_scans([accession], None)
        return cast(Row, row)

    def describe_index(self) -> NamedIndex:
        """The index."""
        (index,) = self.retriever.indexes.values()
        return describe_index(index.manifest, self._written)

    def _queues(self) -> tuple[Batcher[Any, Any], ...]:
        return *super()._queues(), self._scans

    async def _run_scans(self, asked: Sequence[Question | Asked | str], options: Options | None) -> list[Answer | Row]:
        letters = len(options.where.text) if options is not None and isinstance(options.where, Filter) else 0
        cost = len(asked) + letters // LETTERS_OF_SCAN
        (done,) = await self._scans.run([(asked, options)], [cost], deadline=deadline())
        return done

    def _find(self, asked: Sequence[Asked], options: Sequence[Options | None]) -> list[Asked | Answer | Exception]:
        """The answers, of equal options together; without options what was asked, as it is."""
        results: list[Asked | Answer | Exception] = list(asked)
        alike: dict[Options, list[int]] = {}
        for i, its in enumerate(options):
            if its is not None:
                alike.setdefault(its, []).append(i)
        for its, places in alike.items():
            answers = each_alone_on_error(partial(self.retriever.find, options=its), [asked[i] for i in places])
            for i, answer in zip(places, answers, strict=True):
                results[i] = answer
        return results

    def _scan(
        self, items: Sequence[tuple[Sequence[Question | Asked | str], Options | None]]
    ) -> list[list[Answer | Row] | Exception]:
        """The answers of each request; what went wrong with the first that has none, where one has none."""
        results: list[Any] = [one for asked, _ in items for one in asked]
        its_options = [options for asked, options in items for _ in asked]

        def replaced(kind: type, function: Callable[[list[int]], Sequence[Any]]) -> None:
            places = [i for i, result in enumerate(results) if isinstance(result, kind)]
            for i, result in zip(places, function(places), strict=True):
                results[i] = result

        replaced(str, lambda places: each_alone_on_error(self._rows, [results[i] for i in places]))
        replaced(Question, lambda places: each_alone_on_error(self.retriever.embed, [results[i] for i in places]))
        replaced(Asked, lambda places: self._find([results[i] for i in places], [its_options[i] for i in places]))
        left = iter(results)
        requests = [list(islice(left, len(asked))) for asked, _ in items]
        return [next((one for one in its if isinstance(one, Exception)), its) for its in requests]

    def _rows(self, accessions: Sequence[str]) -> list[Row]:
        return [self.retriever.row(accession) for accession in accessions]
