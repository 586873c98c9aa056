"""The processes behind the routes: one that speaks HTTP, one for each encoder, one for the index.

A request's items join those of other requests in one batch. What is wrong with an item is found before it travels, so
that a bad request fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from protclip.errors import CheckpointError, RequestError
from protclip.index.embeddings import Dtype
from protclip.index.index import Index
from protclip.retrieval import Answer, Asked, Options, Question, Retriever
from serve.api import make_api
from serve.errors import OverloadedError, UnavailableError
from serve.loopback import keep_to_loopback
from serve.schemas import IndexInfo
from serve.settings import AppArgs

HEALTH_TIMEOUT_S = 10.0


class Encoder:
    """One half of the model, which embeds the questions of all waiting requests together, in the dtype of the index."""

    def __init__(self, args: AppArgs, fingerprint: str, dtype: Dtype) -> None:
        keep_to_loopback()
        self.retriever = Retriever.load(checkpoint=args.checkpoint, dtype=dtype)
        assert self.retriever.model is not None
        if self.retriever.model.fingerprint != fingerprint:
            raise CheckpointError(
                f"{args.checkpoint}: is the model {self.retriever.model.fingerprint}, and was {fingerprint} when the "
                "application was deployed; deploy again."
            )
        self._embed_one.set_max_batch_size(args.max_batch_size)  # type: ignore[attr-defined]
        self._embed_one.set_batch_wait_timeout_s(args.batch_wait_s)  # type: ignore[attr-defined]

    async def embed(self, questions: list[Question]) -> list[Asked]:
        """A request's questions, all texts or all sequences, as vectors."""
        return await asyncio.gather(*(self._embed_one(question) for question in questions))

    async def ping(self) -> None:
        """Answer, to show that the model is loaded."""

    # No batch_size_fn: an exception in it hangs all later requests (ray#66140).
    @serve.batch
    async def _embed_one(self, questions: list[Question]) -> list[Asked]:
        return await asyncio.to_thread(self.retriever.embed, questions)


class IndexShard:
    """Searches a loaded index."""

    def __init__(self, args: AppArgs, fingerprint: str) -> None:
        keep_to_loopback()
        self.index = Index.load(args.index, expect_fingerprint=fingerprint)
        self.retriever = Retriever(None, self.index)

    async def search(self, question: Question | Asked, options: Options) -> Answer | RequestError:
        """The answer; what is wrong with the question as a value, since an exception would be logged as our failure."""
        return await asyncio.to_thread(self._search, question, options)

    def _search(self, question: Question | Asked, options: Options) -> Answer | RequestError:
        try:
            asked = self.retriever.embed([question]) if isinstance(question, Question) else [question]
            return self.retriever.find(asked, options)[0]
        except RequestError as error:
            return error

    async def describe(self) -> IndexInfo:
        """What the index holds."""
        manifest = self.index.manifest
        return IndexInfo(
            content=manifest.content,
            count=manifest.count,
            dimension=manifest.dimension,
            dtype=manifest.dtype,
            recall_at_10=manifest.recall_at_10,
        )


class Api:
    """Speaks HTTP; the work is done by the others."""

    def __init__(
        self,
        args: AppArgs,
        fingerprint: str,
        proteins: DeploymentHandle[Any],
        texts: DeploymentHandle[Any],
        index: DeploymentHandle[Any],
    ) -> None:
        keep_to_loopback()
        self.args = args
        self.fingerprint = fingerprint
        self._proteins = proteins
        self._texts = texts
        self._index = index
        self._index_info: IndexInfo | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray Serve calls it by this name, after __init__
        return make_api(self, self.args.limits)

    async def embed(self, questions: Sequence[Question]) -> list[Asked]:
        """Texts, or sequences, as vectors."""
        encoder = self._proteins if questions[0].text is None else self._texts
        asked: list[Asked] = await _call(encoder.embed, list(questions))
        return asked

    async def search(self, question: Question, options: Options) -> Answer:
        """The answer to one question."""
        wants_a_model = question.text is not None or question.sequence is not None
        asked = (await self.embed([question]))[0] if wants_a_model else question
        answer: Answer | RequestError = await _call(self._index.search, asked, options)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    async def describe_index(self) -> IndexInfo:
        """What the index holds; asked for once, since an index never changes."""
        if self._index_info is None:
            self._index_info = await _call(self._index.describe)
        return self._index_info

    async def check(self) -> None:
        """Raise UnavailableError where a part does not answer in time."""
        calls = (_call(self._proteins.ping), _call(self._texts.ping), _call(self._index.describe))
        try:
            await asyncio.wait_for(asyncio.gather(*calls), HEALTH_TIMEOUT_S)
        except TimeoutError as error:
            raise UnavailableError(f"the model or the index did not answer in {HEALTH_TIMEOUT_S:.0f} s.") from error


async def _call(method: Any, *args: Any) -> Any:
    try:
        return await method.remote(*args)
    except RayTaskError as error:
        # It is of the class of its cause too, with a traceback for a text; what counts is the cause.
        raise error.cause from error
    except BackPressureError as error:
        raise OverloadedError("too many requests are waiting; ask again in a moment.") from error
    except (DeploymentUnavailableError, RayActorError) as error:
        raise UnavailableError("a part of the server is being restarted; ask again in a moment.") from error
