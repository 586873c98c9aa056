"""A replica: it speaks HTTP, and holds the model and the index.

Requests are checked and tokenised as they come; what waits is embedded and searched together (``serve.batching``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from starlette.types import ASGIApp

from protclip.errors import CheckpointError, RequestError
from protclip.index.embeddings import Dtype
from protclip.questions import Answer, Asked, Options, Prepared, Question
from protclip.retrieval import Retriever
from serve.api import make_api
from serve.batching import Batcher
from serve.guard import guard
from serve.loopback import keep_to_loopback
from serve.schemas import IndexInfo
from serve.settings import AppArgs

INLINE_LETTERS = 5_000
"""Questions of fewer letters are tokenised at once. Longer ones go to a thread, so that others need not wait, and so do
accessions, for which the index is looked through."""

Results = Sequence[Asked] | Sequence[Answer]


@dataclass(frozen=True, slots=True)
class Job:
    """The questions of a request, and how they are answered; None where their vectors are wanted."""

    prepared: Sequence[Prepared]
    options: Options | None


class Replica:
    """Model and index behind the routes."""

    def __init__(self, args: AppArgs, fingerprint: str, dtype: Dtype) -> None:
        keep_to_loopback()
        self.args = args
        self.fingerprint = fingerprint
        self.retriever = Retriever.load(args.index, checkpoint=args.checkpoint, dtype=dtype)
        assert self.retriever.model is not None
        if self.retriever.model.fingerprint != fingerprint:
            raise CheckpointError(
                f"{args.checkpoint}: is the model {self.retriever.model.fingerprint}, and was {fingerprint} when the "
                "application was deployed; deploy again."
            )
        self._batcher: Batcher[Job, Results] = Batcher(
            self._compute, tokens_per_batch=args.tokens_per_batch, max_waiting_tokens=args.max_waiting_tokens
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray Serve calls it by this name, after __init__
        return guard(make_api(self, self.args.limits), self.args)

    async def embed(self, questions: Sequence[Question]) -> list[Asked]:
        """Texts, or sequences, as vectors."""
        return cast(list[Asked], await self._run(questions, None))

    async def search(self, questions: Sequence[Question], options: Options) -> list[Answer]:
        """The answer to each question."""
        return cast(list[Answer], await self._run(questions, options))

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

    async def _run(self, questions: Sequence[Question], options: Options | None) -> Results:
        letters = sum(len(question.text or question.sequence or "") for question in questions)
        if letters <= INLINE_LETTERS and all(question.accession is None for question in questions):
            prepared = self.retriever.prepare(questions)
        else:
            prepared = await asyncio.to_thread(self.retriever.prepare, questions)
        tokens = sum(max(1, one.num_tokens) for one in prepared)
        return await self._batcher.run(Job(prepared, options), tokens)

    def _compute(self, jobs: Sequence[Job]) -> list[Results | Exception]:
        asked = iter(self.retriever.forward([one for job in jobs for one in job.prepared]))
        of_job = [[next(asked) for _ in job.prepared] for job in jobs]
        results: list[Results | Exception] = list(of_job)
        alike: dict[Options, list[int]] = {}
        for i, job in enumerate(jobs):
            if job.options is not None:
                alike.setdefault(job.options, []).append(i)
        for options, places in alike.items():
            try:
                answers = iter(self.retriever.find([one for i in places for one in of_job[i]], options))
                for i in places:
                    results[i] = [next(answers) for _ in of_job[i]]
            except RequestError:
                for i in places:  # so that a bad request fails alone
                    try:
                        results[i] = self.retriever.find(of_job[i], options)
                    except RequestError as error:
                        results[i] = error
        return results
