"""A replica: it speaks HTTP, and holds the model and the index.

Three queues (``serve.batching``), each with a thread of its own, so that what takes long holds up nothing else:

    long     questions of many letters are tokenised; others are when they come
    model    what was tokenised is embedded; by its embedding, the graph of the index is searched
    scans    the rows of the index are gone through: for accessions, filters, exact answers, and to leave out own rows
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI

from protclip.errors import CheckpointError, RequestError
from protclip.index.embeddings import Dtype
from protclip.questions import Answer, Asked, Hit, Options, Prepared, Question
from protclip.retrieval import Retriever
from serve import context
from serve.api import make_api
from serve.batching import Batcher
from serve.loopback import keep_to_loopback
from serve.schemas import IndexInfo
from serve.settings import AppArgs

if TYPE_CHECKING:
    from protclip.embedder import LongPolicy

SHORT_LETTERS = 5_000
"""A request's questions of fewer letters are tokenised at once."""
LETTERS_AT_ONCE = 50_000
"""Of long questions that are tokenised together."""
ITEM_TOKENS = 16
"""What an item costs beside its tokens: an encoder takes about so many more in its time, and memory is held for it."""
HITS_OF_TOKEN = 10
"""So many answers cost as much as a token."""
MAX_SCANS, SCANS_AT_ONCE = 1_000, 32
"""Scans that may wait, and those that are done together."""

WORK_OF_ONE_THREAD = 2e9
"""Weights times tokens of a batch that one thread computes: some 50 ms."""

One = TypeVar("One")
Other = TypeVar("Other")


class Replica:
    """Model and index behind the routes."""

    def __init__(self, args: AppArgs, fingerprint: str, dtype: Dtype) -> None:
        import torch

        keep_to_loopback()
        self.args = args
        self.fingerprint = fingerprint
        self._threads = args.threads or max(1, _num_cores() // args.max_replicas)
        self._set_threads = torch.set_num_threads
        self.retriever = Retriever.load(
            args.index, checkpoint=args.checkpoint, device=args.torch_device, dtype=args.dtype or dtype
        )
        assert self.retriever.model is not None
        self._model = self.retriever.model
        self._weights = sum(parameter.numel() for parameter in self._model.model.parameters())
        if self._model.fingerprint != fingerprint:
            raise CheckpointError(
                f"{args.checkpoint}: is the model {self._model.fingerprint}, and was {fingerprint} when the "
                "application was deployed; deploy again."
            )
        self._long: Batcher[Callable[[], Any], Any] = Batcher(
            lambda calls: together(lambda some: [call() for call in some], calls),
            max_batch_cost=LETTERS_AT_ONCE,
            max_cost_before=4 * args.limits.max_body_bytes,
            name="long",
        )
        self._embeddings: Batcher[tuple[Prepared, Options | None], Asked | Answer] = Batcher(
            self._embed_and_search,
            max_batch_cost=args.tokens_per_batch or self._model.tokens_per_batch,
            max_cost_before=args.max_waiting_tokens,
            name="model",
        )
        self._scans: Batcher[tuple[Question | Asked | str, Options | None], Any] = Batcher(
            self._scan, max_batch_cost=SCANS_AT_ONCE, max_cost_before=MAX_SCANS, name="scans"
        )

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray Serve calls it by this name, after __init__
        return make_api(self, self.args.limits)

    async def embed(self, questions: Sequence[Question], *, long: LongPolicy = "truncate") -> list[Asked]:
        """Texts, or sequences, as vectors.

        Raises:
            RequestError: for a sequence longer than the model sees, where that is an error.
        """
        if long == "window-mean":
            return await self._embed_windows(questions)
        prepared = await self._prepare(questions)
        for one in prepared:
            if long == "error" and one.truncated and one.kind == "protein":
                sequence = one.question.sequence or ""
                raise RequestError(
                    f"sequence {one.question.name or ''!r}: has {len(sequence)} residues, the model sees "
                    f"{self._model.max_protein_tokens - 2}; cut it, or choose another policy for long ones."
                )
        return await self._compute([(one, None) for one in prepared])

    async def search(self, questions: Sequence[Question], options: Options) -> list[Answer]:
        """The answer to each question."""
        answers: list[Any] = [None] * len(questions)
        scanned = [i for i, one in enumerate(questions) if one.accession is not None]
        others = [i for i, one in enumerate(questions) if one.accession is None]
        scans: list[Question | Asked] = [questions[i] for i in scanned]
        if others:
            prepared = await self._prepare([questions[i] for i in others])
            through_rows = options.where is not None or options.exact or options.exclude_self
            found = await self._compute([(one, None if through_rows else options) for one in prepared])
            if through_rows:
                scanned, scans = scanned + others, scans + found
            else:
                for i, answer in zip(others, found, strict=True):
                    answers[i] = answer
        if scanned:
            done = await self._scans.run([(one, options) for one in scans], [1] * len(scans), deadline=_deadline())
            for i, answer in zip(scanned, done, strict=True):
                answers[i] = answer
        return answers

    async def protein(self, accession: str) -> Hit:
        """What the index says of a protein.

        Raises:
            NotFoundError: if it does not hold it.
        """
        row: Hit
        (row,) = await self._scans.run([(accession, None)], [1], deadline=_deadline())
        return row

    async def describe_index(self) -> IndexInfo:
        """What the index holds."""
        (index,) = self.retriever.indexes.values()
        manifest = index.manifest
        return IndexInfo(
            content=manifest.content,
            count=manifest.count,
            dimension=manifest.dimension,
            dtype=manifest.dtype,
            recall_at_10=manifest.recall_at_10,
        )

    async def _prepare(self, questions: Sequence[Question]) -> list[Prepared]:
        letters = _letters(questions)
        if sum(letters) <= SHORT_LETTERS:
            return self.retriever.prepare(questions)
        calls = [partial(self.retriever.prepare, [one]) for one in questions]
        done = await self._long.run(calls, letters, deadline=_deadline())
        return [one for prepared in done for one in prepared]

    async def _compute(self, items: Sequence[tuple[Prepared, Options | None]]) -> list[Any]:
        costs = [
            ITEM_TOKENS + one.num_tokens + (0 if options is None else (options.offset + options.k) // HITS_OF_TOKEN)
            for one, options in items
        ]
        return await self._embeddings.run(items, costs, deadline=_deadline())

    async def _embed_windows(self, questions: Sequence[Question]) -> list[Asked]:
        """Each window is an item of its own."""
        windows = await self._long.run(
            [partial(self.retriever.windows, one) for one in questions], _letters(questions), deadline=_deadline()
        )
        vectors = iter(await self._compute([(one, None) for prepared, _ in windows for one in prepared]))
        return [
            self.retriever.mean_of_windows(question, [next(vectors) for _ in prepared], weights)
            for question, (prepared, weights) in zip(questions, windows, strict=True)
        ]

    def _embed_and_search(self, items: Sequence[tuple[Prepared, Options | None]]) -> list[Any]:
        # Ray has set one thread, for a share of a processor. Little work is done soonest by one: several wait for each
        # other, and where the processors are busy for long.
        work = self._weights * sum(one.num_tokens for one, _ in items)
        self._set_threads(self._threads if work > WORK_OF_ONE_THREAD else 1)
        asked = self.retriever.forward([one for one, _ in items])
        return self._find([(one, options) for one, (_, options) in zip(asked, items, strict=True)])

    def _find(self, items: Sequence[tuple[Asked, Options | None]]) -> list[Any]:
        """The answers, of equal options together; without options what was asked, as it is."""
        results: list[Any] = [one for one, _ in items]
        alike: dict[Options, list[int]] = {}
        for i, (_, options) in enumerate(items):
            if options is not None:
                alike.setdefault(options, []).append(i)
        for options, places in alike.items():
            find = partial(self.retriever.find, options=options)
            found = together(find, [results[i] for i in places])
            for i, result in zip(places, found, strict=True):
                results[i] = result
        return results

    def _scan(self, items: Sequence[tuple[Question | Asked | str, Options | None]]) -> list[Any]:
        results: list[Any] = [what for what, _ in items]
        for kind, function in ((str, self.retriever.proteins), (Question, self.retriever.embed)):
            places = [i for i, (what, _) in enumerate(items) if isinstance(what, kind)]
            for i, result in zip(places, together(function, [results[i] for i in places]), strict=True):
                results[i] = result
        places = [i for i, result in enumerate(results) if isinstance(result, Asked)]
        for i, result in zip(places, self._find([(results[i], items[i][1]) for i in places]), strict=True):
            results[i] = result
        return results


def together(function: Callable[[Sequence[One]], Sequence[Other]], items: Sequence[One]) -> list[Other | Exception]:
    """The function of all items at once; where one of them is at fault, of each, so that it fails alone."""
    try:
        return list(function(items)) if items else []
    except RequestError as error:
        return [error] if len(items) == 1 else [one for item in items for one in together(function, [item])]


def _letters(questions: Sequence[Question]) -> list[int]:
    return [1 + len(one.text or one.sequence or "") for one in questions]


def _deadline() -> float | None:
    request = context.current.get()
    return None if request is None else request.deadline


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
