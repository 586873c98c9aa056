"""A replica: it speaks HTTP, and holds the model and the index.

Requests are checked and tokenised as they come; what waits is embedded and searched together (``serve.batching``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

import numpy as np
from starlette.types import ASGIApp

from protclip import files
from protclip.data.windows import window_starts, window_weights
from protclip.errors import CheckpointError, RequestError
from protclip.index.embeddings import Dtype
from protclip.inputs import LongPolicy
from protclip.manifest import FILE_NAME, read_manifest
from protclip.questions import Answer, Asked, Options, Prepared, Question, Row
from protclip.retrieval import Retriever
from serve.api import make_api
from serve.batching import Batcher
from serve.loopback import keep_to_loopback
from serve.metrics import Load, Measured, Metrics
from serve.schemas_answers import ModelInfo, NamedIndex
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
        self.metrics = Metrics()
        self._written = files.modified(files.join(args.index, FILE_NAME))
        self._model = self._described()
        self._batch_began: float | None = None
        self._batcher: Batcher[Job, Results] = Batcher(
            self._compute, tokens_per_batch=args.tokens_per_batch, max_waiting_tokens=args.max_waiting_tokens
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray Serve calls it by this name, after __init__
        return Measured(make_api(self, self.args.limits, stuck_after_s=self.args.stuck_after_s), self.metrics)

    async def embed(self, questions: Sequence[Question], *, long: LongPolicy = "truncate") -> list[Asked]:
        """Texts, or sequences, as vectors."""
        if long == "window-mean":
            return await self._embed_windows(questions)
        return cast(list[Asked], await self._run(questions, None, refuse_long=long == "error"))

    async def _embed_windows(self, questions: Sequence[Question]) -> list[Asked]:
        """As ``ProtCLIP.embed_proteins(…, long="window-mean")``; each window is an item of its own."""
        size = self._model.max_protein_tokens - 2
        starts = [window_starts(len(question.sequence or ""), size) for question in questions]
        windows = [
            replace(question, sequence=(question.sequence or "")[start : start + size])
            for question, its in zip(questions, starts, strict=True)
            for start in its
        ]
        parts = iter(cast(list[Asked], await self._run(windows, None)))
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

    async def search(self, questions: Sequence[Question], options: Options) -> list[Answer]:
        """The answer to each question."""
        return cast(list[Answer], await self._run(questions, options))

    async def protein(self, accession: str) -> Row:
        """What the index knows of a protein."""
        return await asyncio.to_thread(self.retriever.row, accession)

    def describe_model(self) -> ModelInfo:
        """The model."""
        return self._model

    def describe_index(self) -> NamedIndex:
        """The index."""
        (index,) = self.retriever.indexes.values()
        manifest = index.manifest
        age = None if self._written is None else datetime.now(UTC) - self._written.astimezone(UTC)
        return NamedIndex(
            name="default",
            content=manifest.content,
            count=manifest.count,
            dimension=manifest.dimension,
            dtype=manifest.dtype,
            recall_at_10=manifest.recall_at_10,
            fingerprint=index.fingerprint,
            model=manifest.model_fingerprint,
            created=self._written,
            age_s=None if age is None else age.total_seconds(),
        )

    def load(self) -> Load:
        """What there is to do at this moment."""
        began = self._batch_began
        batch_s = 0.0 if began is None else time.monotonic() - began
        items, tokens = self._batcher.waiting()
        return Load(num_items=items, num_tokens=tokens, batch_s=batch_s)

    def _described(self) -> ModelInfo:
        model = self.retriever.model
        assert model is not None
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

    async def _run(
        self, questions: Sequence[Question], options: Options | None, *, refuse_long: bool = False
    ) -> Results:
        letters = sum(len(question.text or question.sequence or "") for question in questions)
        if letters <= INLINE_LETTERS and all(question.accession is None for question in questions):
            prepared = self.retriever.prepare(questions)
        else:
            prepared = await asyncio.to_thread(self.retriever.prepare, questions)
        if refuse_long:
            for one in prepared:
                if one.truncated:
                    raise RequestError(
                        f"{one.question.name}: is longer than the model sees, {self._model.max_protein_tokens - 2} "
                        f"residues of a protein and {self._model.max_text_tokens} tokens of a text; shorten it, or "
                        "choose another policy for 'long'."
                    )
        tokens = sum(max(1, one.num_tokens) for one in prepared)
        return await self._batcher.run(Job(prepared, options), tokens)

    def _compute(self, jobs: Sequence[Job]) -> list[Results | Exception]:
        began = self._batch_began = time.monotonic()
        try:
            return self._answers(jobs)
        finally:
            self._batch_began = None
            prepared = [one for job in jobs for one in job.prepared]
            self.metrics.count_batch(len(prepared), sum(one.num_tokens for one in prepared), time.monotonic() - began)

    def _answers(self, jobs: Sequence[Job]) -> list[Results | Exception]:
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
