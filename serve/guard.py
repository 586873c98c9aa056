"""What every request passes before the routes see it: who asks, how much, how long, and what is logged of it.

The outermost layer of the application, in each replica. What must happen before Ray Serve's own code sees a request is
in ``serve.front``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from functools import lru_cache

from starlette._utils import get_route_path
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.environment import is_loopback
from protclip.errors import PayloadTooLargeError, ProtclipError, RequestError
from serve.context import RequestContext, current
from serve.errors import (
    DeadlineError,
    EncodingError,
    ForbiddenHostError,
    OverloadedError,
    RequestTimeoutError,
    answer_to,
    internal_error,
)
from serve.keys import Keys, read_keys
from serve.request_log import RequestLog
from serve.settings import AppArgs, Limits

OPEN_PATHS = ("", "/", "/health", "/health/live", "/health/ready", "/openapi.json", "/docs")
"""Answered without a key: what says whether the server lives, and what is the same on every server. With all below."""

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
"""Ids of clients that are taken over: they stand in logs and headers."""

LINGER_S = 1.0
"""How long a refused body is read on, so that its sender comes to read the answer."""

logger = logging.getLogger("ray.serve")


def guard(app: ASGIApp, args: AppArgs, *, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """The application behind the guard.

    Args:
        app: the routes.
        args: the settings.
        clock: gives seconds.

    Raises:
        ConfigError: if the keys cannot be read, or the log cannot be written.
    """
    guarded: ASGIApp = Guard(app, args, clock=clock)
    if args.cors_origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=args.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return guarded


def new_request_id() -> str:
    """An id for a request that brings none."""
    return secrets.token_hex(16)


class Guard:
    """Middleware: request id, deadline, Host, key and rate, body, headers of the answer, log line."""

    def __init__(self, app: ASGIApp, args: AppArgs, *, clock: Callable[[], float]) -> None:
        self.app = app
        self.limits = args.limits
        self.hosts = {"localhost", *(host.lower() for host in args.allowed_hosts)}
        self.clock = clock
        keys = read_keys(args.keys)
        self.keys = None if keys is None else Keys(keys, clock=clock)
        self.log = None if args.request_log is None else RequestLog(args.request_log, with_bodies=args.log_queries)
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Request(self, scope, receive, send).answer()


class _Request:
    """One request on its way through the guard."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard = guard
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if REQUEST_ID.fullmatch(given) else new_request_id()
        self.key: str | None = None
        self.body = bytearray()
        self.has_body = has_body(self.headers)
        self.complete = not self.has_body
        self.status: int | None = None
        self.received_bytes = 0
        self.sent_bytes = 0
        self.replayed = False

    async def answer(self) -> None:
        guard = self.guard
        started = guard.clock()
        timeout_s = guard.limits.request_timeout_s
        token = current.set(RequestContext(request_id=self.request_id, deadline=started + timeout_s))
        error: ProtclipError | OverloadedError | None = None
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    self.key = self._admit()
                    if self.has_body:
                        await self._read_body()
                        if not self.complete:
                            return  # the client has gone
                        self._check_body()
                    await guard.app(self.scope, self._replay, self._send)
            except (ProtclipError, OverloadedError) as refusal:
                error = refusal
            except TimeoutError:
                error = DeadlineError(f"there was no answer within {timeout_s:g} s; ask again later.")
            except Exception:
                logger.exception("request %s failed", self.request_id)
                if self.status is None:
                    await internal_error()(self.scope, self.receive, self._send)
            if error is not None:
                await self._refuse(error)
        finally:
            current.reset(token)
            if guard.log is not None:
                guard.log.write(
                    scope=self.scope,
                    request_id=self.request_id,
                    key=self.key,
                    status=self.status,
                    seconds=guard.clock() - started,
                    received_bytes=self.received_bytes,
                    sent_bytes=self.sent_bytes,
                    body=self.body,
                )
            self._let_go()

    def _admit(self) -> str | None:
        """The name of the key, where keys are wanted.

        Raises:
            RequestError: if this client may not ask.
        """
        server = self.scope.get("server")
        # Behind HAProxy a replica listens on the loopback whoever is served; where keys are wanted, a page has none.
        if self.guard.keys is None and server and is_loopback_address(server[0]):
            self._check_host()
        if self.guard.keys is None or is_open(get_route_path(self.scope)):
            return None
        return self.guard.keys.admit(self.headers.get(b"authorization", b""))

    def _check_host(self) -> None:
        # A page whose name points to this machine reaches the loopback from the browser of whoever looks at it.
        given = self.headers.get(b"host", b"").decode("latin-1").lower()
        host = host_name(given)
        if given and host not in self.guard.hosts and not is_loopback_address(host):
            raise ForbiddenHostError(
                f"Host {given!r} is not this server's; the setting allowed_hosts takes names beside the loopback's."
            )

    async def _read_body(self) -> None:
        limits = self.guard.limits
        encoding = self.headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            raise EncodingError(
                f"Content-Encoding {encoding.decode('latin-1')!r} is not taken; send the body as it is."
            )
        announced = self.headers.get(b"content-length", b"0")
        num_bytes = int(announced[:20]) if announced.isdigit() else None
        if num_bytes is None or num_bytes > limits.max_body_bytes:
            raise too_large(num_bytes, limits)
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                while not self.complete:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        return
                    self._take(message.get("body", b""))
                    self.complete = not message.get("more_body", False)
        except TimeoutError:
            raise RequestTimeoutError(
                f"body: was not whole within {limits.body_timeout_s:g} s; {len(self.body)} bytes had come."
            ) from None

    def _take(self, part: bytes) -> None:
        limits = self.guard.limits
        if len(self.body) + len(part) > limits.max_body_bytes:
            raise too_large(None, limits)
        if self.guard.held_bytes + len(part) > limits.max_held_bytes:
            raise OverloadedError(
                f"the bodies of all requests have more than {limits.max_held_bytes} bytes; ask again later."
            )
        self.guard.held_bytes += len(part)
        self.received_bytes += len(part)
        self.body += part

    def _let_go(self) -> None:
        self.guard.held_bytes -= len(self.body)
        self.body = bytearray()

    def _check_body(self) -> None:
        """Refuse what would cost a lot to parse, and what is not JSON."""
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self.body and content_type != b"application/json":
            raise RequestError("body: send JSON, with the header Content-Type: application/json.")
        # Those of texts count too, which have far fewer.
        limits = self.guard.limits
        for what, count, most in (
            ("values, by its commas", self.body.count(b",") + 1, limits.max_body_values),
            ("fields, by its colons", self.body.count(b":"), limits.max_body_fields),
        ):
            if count > most:
                raise RequestError(f"body: holds {count} {what}; at most {most} are taken. Split the request.")

    async def _replay(self) -> Message:
        if self.replayed or not self.has_body:
            return await self.receive()
        self.replayed = True
        return {"type": "http.request", "body": bytes(self.body), "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers += (b"x-request-id", self.request_id.encode()), (b"x-content-type-options", b"nosniff")
            if not any(name.lower() == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            if not self.complete:
                headers.append((b"connection", b"close"))  # what remains of the body is no next request
            message = {**message, "headers": headers}
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self.send(message)

    async def _refuse(self, error: ProtclipError | OverloadedError) -> None:
        if self.status is not None:  # half an answer is out: the connection breaks
            raise error
        if self.complete:
            await answer_to(error)(self.scope, self.receive, self._send)
            return
        # Some clients send all of a body before they read the answer, which a closed connection would lose.
        self._let_go()
        answer = answer_to(error)
        await self._send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": True})
        rest = self.guard.limits.max_body_bytes
        try:
            async with asyncio.timeout(LINGER_S):
                while rest > 0:
                    message = await self.receive()
                    rest -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def has_body(headers: dict[bytes, bytes]) -> bool:
    """Whether a body follows the head."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def too_large(num_bytes: int | None, limits: Limits) -> PayloadTooLargeError:
    """The refusal of a body of so many bytes; None where it is not known how many they are."""
    if num_bytes is None:
        return PayloadTooLargeError(
            f"body: has more than {limits.max_body_bytes} bytes, which is the most that is taken. Split the request."
        )
    return PayloadTooLargeError(
        f"body: has {num_bytes} bytes; at most {limits.max_body_bytes} are taken. Split the request."
    )


def is_open(path: str) -> bool:
    """Whether a path, below the application's own prefix, is answered without a key."""
    return path in OPEN_PATHS or path.startswith(("/docs/", "/web/"))


def host_name(header: str) -> str:
    """The name, or address, in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


@lru_cache(maxsize=1024)
def is_loopback_address(host: str) -> bool:
    """``is_loopback``, remembered."""
    return is_loopback(host)
