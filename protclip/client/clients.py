"""``Client`` and ``AsyncClient``: who takes the steps of a call."""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import numpy as np
from numpy.typing import NDArray

from protclip.client import calls
from protclip.client.steps import KEY_VARIABLE, Outcome, Send, Servers, Steps, Wait
from protclip.errors import ConfigError
from protclip.inputs import Items, LongPolicy
from protclip.questions import DEFAULTS, Answer, Options, Question, Row
from protclip.version import __version__

T = TypeVar("T")

TIMEOUT_S = 75.0
"""Longer than a server, or HAProxy before it, lets a request wait."""
PATIENCE_S = 120.0
"""Longer than a server needs to start again."""
CONNECT_TIMEOUT_S = 5.0
_NO_PROXY = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
"""The environment's proxies know nothing of this machine's own servers."""


class _Common:
    """What both clients are made of."""

    def __init__(
        self,
        *addresses: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Nothing is sent yet.

        Args:
            addresses: such as ``http://127.0.0.1:8000``, of one server, or of several with the same model and index:
                the first is asked, and where it does not answer the next, and so on.
            key: that the server wants; None takes the environment's PROTCLIP_KEY, and where there is none, none.
            timeout_s: the longest silence of a server that has a request.
            patience_s: for each request, all its tries and waits together.

        Raises:
            ConfigError: for an address or a key that cannot be.
        """
        if not addresses:
            raise ConfigError("no address is given; give one, such as http://127.0.0.1:8000.")
        self._servers = Servers(
            addresses=tuple(map(_address, addresses)),
            timeout_s=_seconds("timeout_s", timeout_s),
            patience_s=_seconds("patience_s", patience_s),
        )
        self._headers = {"User-Agent": f"protclip/{__version__}", "Content-Type": "application/json"}
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        if key:
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise ConfigError("the key holds white space, or what is not ASCII; `protclip make-key` makes keys.")
            self._headers["Authorization"] = f"Bearer {key}"

    def _request(self, http: httpx2.Client | httpx2.AsyncClient, send: Send) -> httpx2.Request:
        # Who waits for a connection of the pool waits for requests of its own.
        timeout = httpx2.Timeout(send.timeout_s, connect=min(CONNECT_TIMEOUT_S, send.timeout_s), pool=None)
        return http.build_request(send.method, send.url, content=send.body, timeout=timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._servers.addresses))})"


class Client(_Common):
    """A server, asked from this thread; several threads may share a client.

    A request whose connection is lost, or that is answered 408, 429, 502, 503 or 504, is sent again: to the next
    address at once, and to the same one after a growing wait, but not before its Retry-After. Each wait is a warning of
    the logger ``protclip.client``. What is asked only reads, so that it may be asked twice.

    Every call raises:
        RequestError: what is wrong with the question, as from ``Retriever``; NotFoundError and PayloadTooLargeError are
            its subclasses.
        ConfigError: where the server wants a key, or another one.
        ServerError: if no answer comes within ``patience_s``, or the server fails.
        IndexMismatchError: if the server went over to another model between two requests of one call.

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
        return httpx2.Client(headers=self._headers, mounts=_NO_PROXY)

    def search(self, *, index: str | None = None, **question_and_options: Any) -> Answer:
        """The answer to one question, with the arguments of ``Retriever.search``: ``search(text="binds ATP", k=5)``.

        ``index`` is the name of one of the server's indexes, here and below; None for ``default``.
        """
        question, options = _one_question(**question_and_options)
        return self._run(calls.search_all(self._servers, [question], options, index))[0]

    def search_all(
        self, questions: Sequence[Question], options: Options = DEFAULTS, *, index: str | None = None
    ) -> list[Answer]:
        """The answers to several questions, any number of them."""
        return self._run(calls.search_all(self._servers, questions, options, index))

    def embed_proteins(self, sequences: Items, *, long: LongPolicy = "truncate") -> NDArray[np.float32]:
        """Embeddings of sequences, (n, D) of unit length, any number of them; of a single str (D,).

        ``long`` as for ``ProtCLIP.embed_proteins``.
        """
        return self._run(calls.embed(self._servers, "proteins", sequences, long))

    def embed_texts(self, texts: Items, *, long: LongPolicy = "truncate") -> NDArray[np.float32]:
        """Embeddings of texts, likewise; ``long`` is "truncate" or "error"."""
        return self._run(calls.embed(self._servers, "texts", texts, long))

    def score(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each pair, (n,): sequence i with text i."""
        return self._run(calls.score(self._servers, sequences, texts))

    def classify(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """How likely each text is that of each sequence, (n, T), as of ``Retriever.classify``; rows sum to 1."""
        return self._run(calls.classify(self._servers, sequences, texts))

    def protein(self, accession: str, *, index: str | None = None) -> Row:
        """What an index knows of a protein."""
        return self._run(calls.protein(self._servers, accession, index))

    def indexes(self) -> list[dict[str, Any]]:
        """The indexes that answer."""
        found: list[dict[str, Any]] = self._run(calls.get(self._servers, "/v1/indexes"))["indexes"]
        return found

    def info(self) -> dict[str, Any]:
        """Version, model, indexes, limits and policies of the server."""
        return self._run(calls.get(self._servers, "/info"))

    def health(self) -> dict[str, Any]:
        """That model and indexes are loaded, and which."""
        return self._run(calls.get(self._servers, "/health"))

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
                    outcome = self._http.send(self._request(self._http, step))
                except httpx2.RequestError as error:
                    outcome = error
        except StopIteration as done:
            result: T = done.value
            return result


class AsyncClient(_Common):
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
        return httpx2.AsyncClient(headers=self._headers, mounts=_NO_PROXY)

    async def search(self, *, index: str | None = None, **question_and_options: Any) -> Answer:
        """As ``Client.search``."""
        question, options = _one_question(**question_and_options)
        return (await self._run(calls.search_all(self._servers, [question], options, index)))[0]

    async def search_all(
        self, questions: Sequence[Question], options: Options = DEFAULTS, *, index: str | None = None
    ) -> list[Answer]:
        """As ``Client.search_all``."""
        return await self._run(calls.search_all(self._servers, questions, options, index))

    async def embed_proteins(self, sequences: Items, *, long: LongPolicy = "truncate") -> NDArray[np.float32]:
        """As ``Client.embed_proteins``."""
        return await self._run(calls.embed(self._servers, "proteins", sequences, long))

    async def embed_texts(self, texts: Items, *, long: LongPolicy = "truncate") -> NDArray[np.float32]:
        """As ``Client.embed_texts``."""
        return await self._run(calls.embed(self._servers, "texts", texts, long))

    async def score(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """As ``Client.score``."""
        return await self._run(calls.score(self._servers, sequences, texts))

    async def classify(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """As ``Client.classify``."""
        return await self._run(calls.classify(self._servers, sequences, texts))

    async def protein(self, accession: str, *, index: str | None = None) -> Row:
        """As ``Client.protein``."""
        return await self._run(calls.protein(self._servers, accession, index))

    async def indexes(self) -> list[dict[str, Any]]:
        """As ``Client.indexes``."""
        found: list[dict[str, Any]] = (await self._run(calls.get(self._servers, "/v1/indexes")))["indexes"]
        return found

    async def info(self) -> dict[str, Any]:
        """As ``Client.info``."""
        return await self._run(calls.get(self._servers, "/info"))

    async def health(self) -> dict[str, Any]:
        """As ``Client.health``."""
        return await self._run(calls.get(self._servers, "/health"))

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
                    outcome = await self._http.send(self._request(self._http, step))
                except httpx2.RequestError as error:
                    outcome = error
        except StopIteration as done:
            result: T = done.value
            return result


def _address(given: str) -> str:
    """An address without a / at its end, where it is one."""
    try:
        url = urlsplit(given)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable or url.username is not None or url.query or url.fragment:
        raise ConfigError(f"address {given!r:.200}: is no http://HOST:PORT or https://HOST, with or without a path.")
    return given.rstrip("/")


def _seconds(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}={value!r:.60}: seconds above 0 are needed.")
    return float(value)


def _one_question(
    *,
    text: str | None = None,
    sequence: str | None = None,
    accession: str | None = None,
    vector: NDArray[np.float32] | None = None,
    **options: Any,
) -> tuple[Question, Options]:
    return Question(text=text, sequence=sequence, accession=accession, vector=vector), Options(**options)
