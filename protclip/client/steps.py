"""How a request comes to its answer: tries, waits and addresses, without any input and output.

A call is a generator of steps. Whoever runs it sends what a ``Send`` says and hands back the response, or what became
of the connection, and waits as long as a ``Wait`` says: ``Client`` in its thread, ``AsyncClient`` in its event loop.
"""

from __future__ import annotations

import json
import logging
import math
import random
import ssl
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx2

from protclip.errors import (
    ConfigError,
    ErrorAnswer,
    NotFoundError,
    PayloadTooLargeError,
    ProtclipError,
    RequestError,
    ServerError,
)
from protclip.terminal import printable

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
"""Waited beside Retry-After before an address is asked again: twice as long each time, less a random part of half."""
TRY_AGAIN = (408, 429, 502, 503, 504)
"""Statuses that pass: what is asked only reads, so it may be asked twice."""
SAME_CLASS = {kind.__name__: kind for kind in (RequestError, NotFoundError, PayloadTooLargeError)}
"""Errors of a question: of the same class from a server as from Python."""
NO_APPLICATION = "NoApplication"
"""The server's type of a 404 that is not the application's, which may still start."""
TOO_SLOW = "DeadlineError"
"""The server's type of a request that it did not compute in its time."""
KEY_VARIABLE = "PROTCLIP_KEY"
"""The environment variable of the key."""

_log = logging.getLogger("protclip.client")


class TooMuchAtOnceError(ServerError):
    """A request of several items is too much for the server's time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """A request, to be sent once."""

    method: str
    url: str
    body: bytes | None
    timeout_s: float
    """The longest silence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing, for so long."""

    seconds: float


Outcome = httpx2.Response | httpx2.RequestError | None
"""Of a step: the response or what became of the connection; None of a wait."""
Steps = Generator[Send | Wait, Outcome, T]


@dataclass(kw_only=True, slots=True)
class Servers:
    """Addresses of servers that answer the same, and what a client knows of them."""

    addresses: tuple[str, ...]
    timeout_s: float
    patience_s: float
    current: int = 0
    """The address that answered last."""
    limits: dict[str, Any] | None = None
    """Of requests, once they are known."""
    rng: random.Random = field(default_factory=random.Random)
    clock: Callable[[], float] = time.monotonic


@dataclass(kw_only=True, slots=True)
class _Tried:
    """An address, in the course of one request."""

    place: int
    tries: int = 0
    not_before: float = -math.inf
    problem: ProtclipError | None = None


def ask(servers: Servers, method: str, path: str, body: Any = None, *, divisible: bool = False) -> Steps[Any]:
    """The JSON that answers a request.

    Args:
        servers: one of them answers.
        method: of HTTP.
        path: of the route.
        body: as JSON; None for none.
        divisible: whether less can be asked for.

    Raises:
        RequestError: what the server says of the question.
        ConfigError: if the server wants a key, or another one.
        TooMuchAtOnceError: where less can be asked for, and the server did not compute this in its time.
        ServerError: if no answer comes and ``patience_s`` are over, or one that no further try would mend.
    """
    content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
    began = servers.clock()
    deadline = began + servers.patience_s
    count = len(servers.addresses)
    round_ = [_Tried(place=(servers.current + i) % count) for i in range(count)]
    one = round_[0]
    while True:
        address = servers.addresses[one.place]
        left_s = max(deadline - servers.clock(), 0.1)
        outcome = yield Send(method=method, url=address + path, body=content, timeout_s=min(servers.timeout_s, left_s))
        answer, problem, retry_after_s = _read(outcome, address, path)
        if problem is None:
            servers.current = one.place
            return answer
        if retry_after_s is None:
            raise problem
        if divisible and problem.answer is not None and problem.answer.type == TOO_SLOW:
            raise TooMuchAtOnceError(str(problem))
        one.problem = problem
        growing_s = min(FIRST_WAIT_S * 2**one.tries, LONGEST_WAIT_S)
        one.tries += 1
        now = servers.clock()
        one.not_before = now + retry_after_s + growing_s * (1 - servers.rng.random() / 2)
        # One that may be asked now, else the one that may be asked first.
        one = min(round_, key=lambda other: max(other.not_before, now))
        wait_s = max(one.not_before - now, 0.0)
        if now + wait_s >= deadline:
            raise _given_up(round_, now - began)
        if wait_s:
            _log.warning("%s; trying again in %.1f s, for %.0f s at most", problem, wait_s, deadline - now)
            yield Wait(seconds=wait_s)


def _read(outcome: Outcome, address: str, path: str) -> tuple[Any, ProtclipError | None, float | None]:
    """The answer, or what went wrong and after how many seconds it may be tried again; None for never."""
    assert outcome is not None
    if isinstance(outcome, httpx2.RequestError):
        tls = _tls_error(outcome)
        speaks_none = "WRONG_VERSION_NUMBER" in str(tls)
        advice = "; it answers without TLS: is its address http://…?" if speaks_none else ""
        problem = ServerError(f"{address}: {str(outcome) or type(outcome).__name__}{advice}")
        # Neither that nor a certificate is mended by a further try.
        return None, problem, None if speaks_none or isinstance(tls, ssl.SSLCertVerificationError) else 0.0
    if outcome.is_success:
        try:
            found = outcome.json()
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            return None, ServerError(f"{address}{path}: answers no JSON object; is it a ProtCLIP server?"), None
        return found, None, None
    if outcome.has_redirect_location:
        where = printable(outcome.headers["Location"])
        return None, ServerError(f"{address}{path}: the server is at {where}; give the address of that."), None
    told = _error_answer(outcome, address)
    return None, _error_of(told, path), _retry_after(outcome) if _passes(told) else None


def _passes(told: ErrorAnswer) -> bool:
    """Whether the same request may be answered another time."""
    if told.status == HTTPStatus.NOT_FOUND:  # the application's own stays; a proxy's may pass
        return told.type == NO_APPLICATION or not told.message
    return told.status in TRY_AGAIN


def _error_answer(response: httpx2.Response, address: str) -> ErrorAnswer:
    """What an error's answer says, in the server's form or in another."""
    try:
        told = response.json()["error"]
        kind, message, request_id = str(told["type"]), str(told["message"]), told["request_id"]
    except (ValueError, TypeError, KeyError):
        kind, message, request_id = response.reason_phrase, "", None
    return ErrorAnswer(address=address, status=response.status_code, type=kind, message=message, request_id=request_id)


def _error_of(told: ErrorAnswer, path: str) -> ProtclipError:
    place = f"{told.address}{path}"
    which = f"request {told.request_id}"
    kind: type[ProtclipError] = ServerError
    if told.type in SAME_CLASS:
        kind, text = SAME_CLASS[told.type], f"{told.message} ({place}, {which})"
    elif told.status == HTTPStatus.UNAUTHORIZED:
        says = told.message or "a key is wanted, by something before the server or another server."
        kind, text = ConfigError, f"{place}: {says} Set {KEY_VARIABLE}, or give the argument key ({which})."
    elif told.message:
        text = f"{place}: {told.status} {told.type}: {told.message} ({which})"
    else:
        text = f"{place}: answers {told.status} {told.type}, which is not of a ProtCLIP server's form"
    error = kind(printable(text))
    error.answer = told
    return error


def _retry_after(response: httpx2.Response) -> float:
    """Seconds for which the server wants not to be asked, given as a number or a date."""
    given = response.headers.get("Retry-After", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        return max((parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """What TLS has to do with it; None for nothing."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _given_up(round_: list[_Tried], seconds: float) -> ServerError:
    """The last problem of each address that was asked."""
    problems = [one.problem for one in round_ if one.problem is not None]
    num_tries = sum(one.tries for one in round_)
    error = ServerError(
        f"{'; '.join(map(str, problems))}; given up after {seconds:.0f} s, tries: {num_tries}. Check the address and "
        "that the server runs, or ask again later."
    )
    error.answer = next((one.answer for one in problems if one.answer is not None), None)
    return error
