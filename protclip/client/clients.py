"""``Client`` and ``AsyncClient``: who takes the steps of a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
import numpy as np
from numpy.typing import NDArray

from protclip.client import calls
from protclip.client.connection import NO_PROXY, Connection
from protclip.client.steps import Outcome, Steps, Wait
from protclip.inputs import Items, LongPolicy
from protclip.questions import DEFAULTS, Answer, Explanation, Options, Protein, Question

T = TypeVar("T")


class Client(Connection):
    """A server, asked from this thread; several threads may share a client.

    A request whose connection is lost, or whose answer is an error that passes (docs/serving.md), is sent again: to
    the next address at once, and to the same one after a growing wait, but not before its Retry-After. Each wait is a
    warning of the logger ``protclip.client``. What is asked only reads, so that it may be asked twice.

    Every call raises:
        RequestError: what is wrong with the question, as from ``Retriever``; NotFoundError and PayloadTooLargeError are
            its subclasses.
        ConfigError: where the server wants a key, or another one.
        ServerError: if no answer comes within ``patience_s``, or the server fails.
        IndexMismatchError: if the server went over to another model or index between two requests of a call.

    Its attribute ``answer`` has what a server said, with the id of the request.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    @cached_property
    def _http(self) -> httpx2.Client:
        with self.environment():
            return httpx2.Client(headers=self.headers, mounts=NO_PROXY)

    def search(self, *, index: str | None = None, allow_partial: bool = False, **question_and_options: Any) -> Answer:
        """The answer to one question, with the arguments of ``Retriever.search``: ``search(text="binds ATP", k=5)``.

        Args:
            index: name of one of the server's indexes, here and below; None for ``default``.
            allow_partial: where shards of the index cannot be reached, take a ``PartialAnswer`` from the others, whose
                ``partial`` says what is missing. Else the server is asked again, for ``patience_s``.
            question_and_options: as of ``Question`` and ``Options``.
        """
        question, options = _one_question(**question_and_options)
        steps = calls.search_all(self.servers, [question], options, index, allow_partial=allow_partial)
        return self._run(steps)[0]

    def search_all(
        self,
        questions: Sequence[Question],
        options: Options = DEFAULTS,
        *,
        index: str | None = None,
        allow_partial: bool = False,
    ) -> list[Answer]:
        """The answers to several questions, any number of them; ``allow_partial`` as of ``search``."""
        return self._run(calls.search_all(self.servers, questions, options, index, allow_partial=allow_partial))

    def embed_proteins(
        self, sequences: Items, *, long: LongPolicy = "truncate", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Embeddings of sequences, (n, D) of unit length, any number of them; of a single str (D,).

        ``long`` and ``dimensions`` as for ``ProtCLIP.embed_proteins``.
        """
        return self._run(calls.embed(self.servers, "proteins", sequences, long, dimensions))

    def embed_texts(
        self, texts: Items, *, long: LongPolicy = "truncate", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Embeddings of texts, likewise; ``long`` is "truncate" or "error"."""
        return self._run(calls.embed(self.servers, "texts", texts, long, dimensions))

    def score(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each pair, (n,): sequence i with text i."""
        return self._run(calls.score(self.servers, sequences, texts))

    def classify(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """How likely each text is that of each sequence, (n, T), as of ``Retriever.classify``; rows sum to 1."""
        return self._run(calls.classify(self.servers, sequences, texts))

    def explain(
        self,
        sequence: str | None = None,
        text: str = "",
        *,
        accession: str | None = None,
        index: str | None = None,
        window: int | None = None,
        stride: int = 1,
    ) -> Explanation:
        """Which residues make a protein match a text, as ``Retriever.explain``.

        Args:
            sequence: in one-letter code; None for that which the server has of the accession.
            text: such as ``FUNCTION: Hydrolyses ATP.``
            accession: whose sequence it is.
            index: that holds the accession, where no sequence is given.
            window: residues masked together; None for the default.
            stride: residues from one window to the next, at least; the answer has the one that was used.
        """
        steps = calls.explain(self.servers, sequence, text, accession, index, window, stride)
        return self._run(steps)

    def protein(self, accession: str, *, index: str | None = None) -> Protein:
        """What an index knows of a protein, and its ``sequence`` where the server has it."""
        return self._run(calls.protein(self.servers, accession, index))

    def indexes(self) -> list[dict[str, Any]]:
        """The indexes that answer."""
        return self._run(calls.indexes(self.servers))

    def info(self) -> dict[str, Any]:
        """Version, model, indexes, limits and policies of the server."""
        return self._run(calls.get(self.servers, "/info"))

    def health(self) -> dict[str, Any]:
        """That model and indexes are loaded, and which."""
        return self._run(calls.get(self.servers, "/health"))

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    outcome = None
                    continue
                try:
                    outcome = self._http.send(self.request(self._http, step))
                except httpx2.RequestError as error:
                    outcome = error
        except StopIteration as done:
            result: T = done.value
            return result


class AsyncClient(Connection):
    """``Client`` for asyncio: the same calls, awaited. Several may be under way at a time."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        with self.environment():
            return httpx2.AsyncClient(headers=self.headers, mounts=NO_PROXY)

    async def search(
        self, *, index: str | None = None, allow_partial: bool = False, **question_and_options: Any
    ) -> Answer:
        """As ``Client.search``."""
        question, options = _one_question(**question_and_options)
        steps = calls.search_all(self.servers, [question], options, index, allow_partial=allow_partial)
        return (await self._run(steps))[0]

    async def search_all(
        self,
        questions: Sequence[Question],
        options: Options = DEFAULTS,
        *,
        index: str | None = None,
        allow_partial: bool = False,
    ) -> list[Answer]:
        """As ``Client.search_all``."""
        return await self._run(calls.search_all(self.servers, questions, options, index, allow_partial=allow_partial))

    async def embed_proteins(
        self, sequences: Items, *, long: LongPolicy = "truncate", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """As ``Client.embed_proteins``."""
        return await self._run(calls.embed(self.servers, "proteins", sequences, long, dimensions))

    async def embed_texts(
        self, texts: Items, *, long: LongPolicy = "truncate", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """As ``Client.embed_texts``."""
        return await self._run(calls.embed(self.servers, "texts", texts, long, dimensions))

    async def score(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """As ``Client.score``."""
        return await self._run(calls.score(self.servers, sequences, texts))

    async def classify(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """As ``Client.classify``."""
        return await self._run(calls.classify(self.servers, sequences, texts))

    async def explain(
        self,
        sequence: str | None = None,
        text: str = "",
        *,
        accession: str | None = None,
        index: str | None = None,
        window: int | None = None,
        stride: int = 1,
    ) -> Explanation:
        """As ``Client.explain``."""
        steps = calls.explain(self.servers, sequence, text, accession, index, window, stride)
        return await self._run(steps)

    async def protein(self, accession: str, *, index: str | None = None) -> Protein:
        """As ``Client.protein``."""
        return await self._run(calls.protein(self.servers, accession, index))

    async def indexes(self) -> list[dict[str, Any]]:
        """As ``Client.indexes``."""
        return await self._run(calls.indexes(self.servers))

    async def info(self) -> dict[str, Any]:
        """As ``Client.info``."""
        return await self._run(calls.get(self.servers, "/info"))

    async def health(self) -> dict[str, Any]:
        """As ``Client.health``."""
        return await self._run(calls.get(self.servers, "/health"))

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                    continue
                try:
                    outcome = await self._http.send(self.request(self._http, step))
                except httpx2.RequestError as error:
                    outcome = error
        except StopIteration as done:
            result: T = done.value
            return result


def _one_question(
    *,
    text: str | None = None,
    sequence: str | None = None,
    accession: str | None = None,
    vector: NDArray[np.float32] | None = None,
    **options: Any,
) -> tuple[Question, Options]:
    return Question(text=text, sequence=sequence, accession=accession, vector=vector), Options(**options)
