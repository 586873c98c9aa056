"""Every error as one envelope, by one table from error classes to HTTP statuses."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from protclip.errors import NotFoundError, PayloadTooLargeError, ProtclipError, RequestError
from serve import haproxy_config
from serve.context import current

SHOWN_PROBLEMS = 3
"""Of a request with many wrong fields, so many are named."""
SHOWN_LETTERS = 80
"""Of a field's name, which is the client's where it is not known here."""

logger = logging.getLogger("ray.serve")


class OverloadedError(Exception):
    """More requests wait than the server takes; ask again later."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """When what waits will have been computed, as far as is known."""


class DeadlineError(OverloadedError):
    """The request was not answered within its time."""


class UnavailableError(OverloadedError):
    """A part of a sharded deployment has no replica now."""


class NotReadyError(OverloadedError):
    """The replica would not answer a request now."""


class UnauthorizedError(RequestError):
    """No key, or one that is not known here."""


class ForbiddenHostError(RequestError):
    """A Host header that is not this server's: a page elsewhere may have had its name point here."""


class RequestTimeoutError(RequestError):
    """The head or the body did not come within its time."""


class EncodingError(RequestError):
    """A body in an encoding that is not taken, such as gzip."""


class RateLimitError(RequestError):
    """More requests with a key than its rate allows."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """When the next request is allowed."""


STATUSES: dict[type[Exception], int] = {
    UnauthorizedError: 401,
    ForbiddenHostError: 403,
    NotFoundError: 404,
    RequestTimeoutError: 408,
    PayloadTooLargeError: 413,
    EncodingError: 415,
    RateLimitError: 429,
    RequestError: 422,
    OverloadedError: 503,
    ProtclipError: 500,
}
"""By the nearest ancestor. The request is at fault below 500; the last means that the server is set up wrongly."""


def envelope(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """``{"error": {"type", "message", "request_id"}}``; outside a request the id is null."""
    # A lone surrogate that a message quotes from the request cannot be sent as UTF-8.
    message = message.encode("utf-8", "backslashreplace").decode()
    context = current.get()
    error = {"type": kind, "message": message, "request_id": context and context.request_id}
    return JSONResponse({"error": error}, status, headers=headers)


def internal_error() -> JSONResponse:
    """The envelope of what is the server's fault: the client learns no details."""
    return envelope(500, *haproxy_config.ERRORS[500])


def answer_to(error: ProtclipError | OverloadedError) -> JSONResponse:
    """The envelope of an error of ours, with the headers that its status asks for; the server's fault is logged."""
    status, headers = status_of(error), {}
    if isinstance(error, ProtclipError) and status >= 500:
        context = current.get()
        logger.error("request %s failed: %s", context and context.request_id, error)
    if isinstance(error, OverloadedError | RateLimitError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, EncodingError):
        headers["Accept-Encoding"] = "identity"
    return envelope(status, type(error).__name__, str(error), headers)


def status_of(error: Exception) -> int:
    """The HTTP status of an error of ours, that of its nearest ancestor in STATUSES."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def type_of(status: int) -> str:
    """The type of an error that has no class of ours: ``NotFound`` for 404."""
    return HTTPStatus(status).phrase.title().replace(" ", "")


def install_error_handlers(app: FastAPI) -> None:
    """Answer every exception of the app in the envelope."""

    @app.exception_handler(ProtclipError)
    @app.exception_handler(OverloadedError)
    async def known(_: Request, error: ProtclipError | OverloadedError) -> JSONResponse:
        return answer_to(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return envelope(422, RequestError.__name__, describe_problems(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return envelope(error.status_code, type_of(error.status_code), str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def internal(_: Request, _error: Exception) -> JSONResponse:
        # Starlette raises it again after the answer, so that it is logged whole.
        return internal_error()


def describe_problems(problems: Sequence[Any]) -> str:
    """Pydantic's findings as one line: ``field: what is wrong``."""
    shown = []
    for problem in problems[:SHOWN_PROBLEMS]:
        # A position inside malformed JSON is no field.
        names = [str(part)[:SHOWN_LETTERS] for part in problem["loc"] if problem["type"] != "json_invalid"]
        reason = problem["msg"]
        if problem["type"] in {"json_invalid", "value_error"}:
            reason = problem["ctx"]["error"]
        elif problem["type"] == "too_long":
            given, most = problem["ctx"]["actual_length"], problem["ctx"]["max_length"]
            reason = f"holds {given} items; at most {most} are taken"
        shown.append(f"{'.'.join(names) or 'body'}: {reason}")
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(f"and {len(problems) - SHOWN_PROBLEMS} more")
    return "; ".join(shown) + "."
