"""A replica: it speaks HTTP, and holds the model and the indexes.

Three queues (``serve.batching``), each with a thread of its own, so that what takes long holds up nothing else:

    long     questions of many letters are tokenised; others are when they come
    model    what was tokenised is embedded; by its embedding, the graph of the index is searched
    scans    the rows of the index are gone through: for accessions, filters, exact answers, and to leave out own rows

Explanations have a thread too, and let searches go first (``serve.explaining``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from starlette.types import ASGIApp

from protclip.data.windows import window_starts, window_weights
from protclip.errors import CheckpointError, NotFoundError, ProtclipError, RequestError
from protclip.index.embeddings import METADATA, Dtype
from protclip.index.filters import Filter
from protclip.index.manifest import read_index_manifest
from protclip.inputs import LongPolicy
from protclip.manifest import read_manifest
from protclip.questions import DEFAULTS, Answer, Asked, Explanation, Options, Prepared, Protein, Question, Row
from protclip.retrieval import Retriever
from serve import context
from serve.answers import ModelInfo, NamedIndex
from serve.api import make_api
from serve.batching import Batcher
from serve.explaining import Explainer
from serve.guard import guard
from serve.indexes import Indexes, State
from serve.keys import NO_KEYS
from serve.loopback import keep_to_loopback
from serve.metrics import CountRequests, Load, Metrics
from serve.sequences import load_sequences
from serve.settings import DEFAULT_INDEX, AppArgs, read_user_config

SHORT_LETTERS = 5_000
"""A request's questions of fewer letters are tokenised at once."""
LETTERS_AT_ONCE = 50_000
"""Of long questions that are tokenised together."""
ITEM_TOKENS = 16
"""What an item costs beside its tokens: an encoder takes about so many more in its time, and memory is held for it."""
HITS_OF_TOKEN = 10
"""So many answers cost as much as a token."""
MAX_SCANS, SCANS_AT_ONCE = 1_000, 32
"""Scans that may wait, and those that are done together: each question of a request is one, and its filter more."""
LETTERS_OF_SCAN = 10
"""So many letters of a filter, at least a condition, cost as much as a scan."""
WORK_OF_ONE_THREAD = 5e8
"""Weights times tokens of a batch that one thread computes: some 15 ms."""

SWITCH_S = 0.0005
"""How long a thread keeps Python's lock from another (decision 076)."""

One = TypeVar("One")
Other = TypeVar("Other")


class Search(NamedTuple):
    """How a question is answered, and from what: a request keeps the index with which it began."""

    retriever: Retriever
    options: Options


class Replica:
    """Model and indexes behind the routes."""

    indexes: Indexes

    def __init__(self, args: AppArgs, fingerprint: str) -> None:
        """Without model and indexes; ``reconfigure`` loads them."""
        keep_to_loopback()
        self.args = args
        self.fingerprint = fingerprint
        self.metrics = Metrics()
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
        from protclip.embedding import ProtCLIP

        args, paths = self.args, list(read_user_config(user_config).indexes.values())
        own_dtype = read_index_manifest(paths[0]).dtype
        model = ProtCLIP.from_pretrained(args.checkpoint, device=args.torch_device, dtype=args.dtype or own_dtype)
        if model.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{args.checkpoint}: is the model {model.fingerprint}, and was {self.fingerprint} when the "
                "application was deployed; deploy again."
            )
        self.indexes = Indexes(model, dtype=None if args.dtype else own_dtype)
        self._encoder = Retriever(model)
        self._sequences = None if args.sequences is None else load_sequences(args.sequences)
        self._model = self._model_info()
        self._threads = args.threads or max(1, _num_cores() // args.max_replicas)
        self._long: Batcher[Question, Prepared] = Batcher(
            partial(each_alone_on_error, self._encoder.prepare),
            max_batch_cost=LETTERS_AT_ONCE,
            max_cost_before=4 * args.limits.max_body_bytes,
            name="long",
        )
        self._embeddings: Batcher[tuple[Prepared, Search | None], Asked | Answer] = Batcher(
            self._embed_and_search,
            max_batch_cost=args.tokens_per_batch or model.tokens_per_batch,
            max_cost_before=args.max_waiting_tokens,
            name="model",
        )
        # All of a request at once, so that the rows are gone through once for its filter.
        self._scans: Batcher[tuple[Sequence[Question | Asked | str], Search], list[Answer | Row]] = Batcher(
            self._scan, max_batch_cost=SCANS_AT_ONCE, max_cost_before=MAX_SCANS, name="scans"
        )
        self._explainer = Explainer(
            self._encoder,
            explain_s=args.limits.explain_s,
            is_searching=lambda: self._embeddings.running_s() > 0,
            use_threads=partial(self._use_threads, num_spared=1),
            count_tokens=self.metrics.count_explained,
        )
        # Torch gives up Python's lock at each step; by default the event loop would keep it from the next for 5 ms.
        sys.setswitchinterval(SWITCH_S)
        self.indexes.load(user_config)

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray Serve calls it by this name, after __init__
        args = self.args
        api = make_api(self, args.limits, stuck_after_s=args.stuck_after_s, secured=args.keys != NO_KEYS)
        return CountRequests(guard(api, args), self.metrics)

    async def embed(self, questions: Sequence[Question], *, long: LongPolicy = "truncate") -> list[Asked]:
        """Texts, or sequences, as vectors.

        Raises:
            RequestError: for one that is longer than the model sees, where that is an error.
        """
        if long == "window-mean":
            return await self._embed_windows(questions)
        prepared = await self._prepare(questions)
        for one in prepared:
            if long == "error" and one.truncated:
                raise RequestError(
                    f"{one.question.name}: is longer than the model sees, {self._model.max_protein_tokens - 2} "
                    f"residues of a protein and {self._model.max_text_tokens} tokens of a text; shorten it, or choose "
                    "another policy for 'long'."
                )
        return cast(list[Asked], await self._compute(prepared, None))

    async def search(
        self, questions: Sequence[Question], options: Options, *, index: str = DEFAULT_INDEX
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
        if sequence is None:
            assert accession is not None
            if self._sequences is None:
                raise RequestError(
                    f"accession {accession!r:.80}: this server was started without sequences; give 'sequence' instead."
                )
            sequence = self._sequences.find(accession, (await self._row(accession, index))["sequence_hash"])
        return await self._explainer.explain(
            sequence, text, accession=accession, window=window, stride=stride, deadline=_deadline()
        )

    async def protein(self, accession: str, *, index: str = DEFAULT_INDEX) -> Protein:
        """What an index knows of a protein, and its sequence.

        Raises:
            NotFoundError: if it does not hold it, or the index is not served.
        """
        row = await self._row(accession, index)
        row["sequence"] = None
        if self._sequences is not None:
            with contextlib.suppress(NotFoundError):
                row["sequence"] = self._sequences.find(accession, row["sequence_hash"])
        del row["sequence_hash"]
        return cast(Protein, row)

    def describe_model(self) -> ModelInfo:
        """The model."""
        return self._model

    def describe_indexes(self) -> list[NamedIndex]:
        """The indexes, ``default`` first, where there is one."""
        return self.indexes.describe()

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

    def load(self) -> Load:
        """What there is to do at this moment."""
        items, tokens = self._embeddings.waiting()
        oldest_s = max(queue.running_s() for queue in (self._long, self._embeddings, self._scans, self._explainer))
        return Load(
            num_items=items,
            num_tokens=tokens,
            num_explanations=self._explainer.num_under_way,
            batch_s=oldest_s,
        )

    def _model_info(self) -> ModelInfo:
        model = self.indexes.model
        record = read_manifest(self.args.checkpoint, "checkpoint", verify=False, error=CheckpointError)
        return ModelInfo(
            fingerprint=self.fingerprint,
            dimension=model.dimension,
            max_protein_tokens=model.max_protein_tokens,
            max_text_tokens=model.max_text_tokens,
            num_parameters=sum(parameter.numel() for parameter in model.model.parameters()),
            scale=model.scale,
            device=str(model.device),
            dtype=cast(Dtype, str(model.dtype).removeprefix("torch.")),
            metrics=record.get("metrics") or {},
        )

    async def _prepare(self, questions: Sequence[Question]) -> list[Prepared]:
        letters = [1 + len(one.text or one.sequence or "") for one in questions]
        if sum(letters) <= SHORT_LETTERS:
            return self._encoder.prepare(questions)
        return await self._long.run(questions, letters, deadline=_deadline())

    async def _compute(self, prepared: Sequence[Prepared], search: Search | None) -> list[Asked | Answer]:
        hits = 0 if search is None else search.options.offset + search.options.k
        costs = [ITEM_TOKENS + one.num_tokens + hits // HITS_OF_TOKEN for one in prepared]
        return await self._embeddings.run([(one, search) for one in prepared], costs, deadline=_deadline())

    async def _run_scans(self, asked: Sequence[Question | Asked | str], search: Search) -> list[Answer | Row]:
        where = search.options.where
        letters = len(where.text) if isinstance(where, Filter) else 0
        cost = len(asked) + letters // LETTERS_OF_SCAN
        (done,) = await self._scans.run([(asked, search)], [cost], deadline=_deadline())
        return done

    async def _row(self, accession: str, index: str) -> dict[str, Any]:
        """What an index knows of a protein, the hash of its sequence too; raises NotFoundError."""
        (row,) = await self._run_scans([accession], Search(self.indexes.retriever(index), DEFAULTS))
        return cast(dict[str, Any], row)

    async def _embed_windows(self, questions: Sequence[Question]) -> list[Asked]:
        """As ``ProtCLIP.embed_proteins(…, long="window-mean")``; each window is an item of its own."""
        size = self._model.max_protein_tokens - 2
        starts = [window_starts(len(question.sequence or ""), size) for question in questions]

        def cut() -> list[Question]:
            return [
                replace(question, sequence=(question.sequence or "")[start : start + size])
                for question, its in zip(questions, starts, strict=True)
                for start in its
            ]

        parts = iter(await self.embed(await asyncio.to_thread(cut)))
        means = []
        for question, its in zip(questions, starts, strict=True):
            own = [next(parts) for _ in its]
            vector = own[0].vector
            if len(own) > 1:
                weights = window_weights(its, size, len(question.sequence or ""))
                vector = weights @ np.stack([part.vector for part in own])
                vector /= np.linalg.norm(vector)
            num_tokens = sum(part.num_tokens for part in own)
            means.append(Asked(question=question, vector=vector, kind="protein", num_tokens=num_tokens))
        return means

    def _embed_and_search(self, items: Sequence[tuple[Prepared, Search | None]]) -> list[Asked | Answer | Exception]:
        began = time.monotonic()
        num_tokens = sum(one.num_tokens for one, _ in items)
        self._use_threads(num_tokens)
        asked = self._encoder.forward([one for one, _ in items])
        results = self._find(asked, [search for _, search in items])
        self.metrics.count_batch(len(items), num_tokens, time.monotonic() - began)
        return results

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

    def _use_threads(self, num_tokens: int, *, num_spared: int = 0) -> None:
        """Of the calling thread; Ray has set one for torch, for a share of a processor.

        Little work is done soonest by one: several wait for each other, and for long where the processors are busy.
        """
        import torch

        much = self._model.num_parameters * num_tokens > WORK_OF_ONE_THREAD
        torch.set_num_threads(max(1, self._threads - num_spared) if much else 1)


def _alike(items: Iterable[One | None]) -> dict[One, list[int]]:
    """The places of each item."""
    places: dict[One, list[int]] = {}
    for i, one in enumerate(items):
        if one is not None:
            places.setdefault(one, []).append(i)
    return places


def each_alone_on_error(
    function: Callable[[Sequence[One]], Sequence[Other]], items: Sequence[One]
) -> list[Other | Exception]:
    """The function of all items at once; where one of them is at fault, of each, so that it fails alone."""
    try:
        return list(function(items)) if items else []
    except RequestError as error:
        return [error] if len(items) == 1 else [one for item in items for one in each_alone_on_error(function, [item])]


def _deadline() -> float | None:
    request = context.current.get()
    return None if request is None else request.deadline


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
