"""What happens to a request before Ray Serve's own code sees it, in each process that listens for HTTP.

Serve decodes some headers as UTF-8 and obeys others, answers errors in plain text, and has no bound on what a
connection may send before its request is whole. ``middlewares`` is the hook that Serve has for this, named by a
variable that is set before Ray starts: ``use_front``.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import uvicorn
import uvicorn.config
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serve import haproxy_config
from serve.errors import type_of
from serve.guard import REQUEST_ID, has_body, new_request_id
from serve.haproxy_config import BUFFER_BYTES, NO_APPLICATION

SERVER_HEADER = (b"server", b"uvicorn")

VARIABLE, HOOK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve.front:middlewares"

MAX_HEAD_BYTES = 32 * 2**10
"""Of a request line and headers: above it 431."""
BUFFER_TIMEOUT_S = 10.0
"""Within which a whole head must come, of a first request or a next one; and then as much of a body as Serve does not
hear of before (``BUFFER_BYTES``)."""
PAUSE_S = 0.005
"""Before each further part of a body. Serve's own proxy takes whatever comes, faster than a replica refuses it."""
MAX_BODY_PARTS = 20_000
"""In which a body may come. Each costs the parser as much, a chunk of one byte too; above it the connection ends."""
MAX_CONNECTIONS = 4096
"""To one process; further ones are answered 503 and closed. HAProxy has as many."""

CONTROL_HEADERS = frozenset(
    name.encode()
    for header in (
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "serve-multiplexed-model-id",
        "x-session-id",
    )
    for name in (header, header.replace("-", "_"))  # Serve reads some of them with an underscore
)
"""With these a client could switch off the server's time limit, or the watch for clients that have gone."""
TRACES = (b"traceparent", b"tracestate", b"baggage")

ERRORS = {
    **haproxy_config.ERRORS,
    404: NO_APPLICATION,
    431: (type_of(431), f"head: has more than {MAX_HEAD_BYTES} bytes, which is the most that is taken."),
}
"""Types and messages of errors that do not come from the application."""


def use_front() -> None:
    """Have the Ray Serve that is started next put the front before its own code."""
    os.environ.setdefault(VARIABLE, HOOK)


def is_used() -> bool:
    """Whether this process has been told to put the front before Serve's code."""
    return os.environ.get(VARIABLE) == HOOK


def middlewares() -> list[Middleware]:
    """Called by Ray Serve in each process that listens, before it does."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{LimitedProtocol.__name__}"
    # A request to change to a WebSocket is then answered like another.
    uvicorn.config.WS_PROTOCOLS["auto"] = None
    return [Middleware(Front)]


class Front:
    """Cleans the headers of requests, and gives Serve's own errors our form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, request_id = clean(scope["headers"])
        scope["headers"] = headers
        answer = _Answer(scope, send, request_id)
        if not has_body(dict(headers)):
            await self.app(scope, receive, answer.send)
            return
        try:
            async with asyncio.timeout(BUFFER_TIMEOUT_S):
                start = await first_part(receive)
        except TimeoutError:
            await answer.replace(408, [(b"connection", b"close")])
            return
        waiting, more = [start], start.get("more_body", False)

        async def replay() -> Message:
            nonlocal more
            if waiting:
                return waiting.pop()
            if more:
                await asyncio.sleep(PAUSE_S)
            message = await receive()
            more = more and message.get("more_body", False)
            return message

        if start["type"] != "http.disconnect":
            await self.app(scope, replay, answer.send)


async def first_part(receive: Receive) -> Message:
    """A body, or so much of it that it must be passed on before it is whole.

    A request costs Serve a lot from when it hears of it on, and so would many that are never whole.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if not more or len(body) >= BUFFER_BYTES:
            return {"type": "http.request", "body": bytes(body), "more_body": more}


def clean(headers: list[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], str]:
    """The headers that Serve may see, with one request id; and that id."""
    kept, request_id = [], b""
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value
        elif name in CONTROL_HEADERS or (name in TRACES and not value.isascii()):
            continue
        else:
            kept.append((name, value))
    if not REQUEST_ID.fullmatch(request_id):
        request_id = new_request_id().encode()
    kept.append((b"x-request-id", request_id))
    return kept, request_id.decode()


class _Answer:
    """The answer to one request on its way out."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.scope = scope
        self.inner_send = send
        self.request_id = request_id
        self.replaced = False
        self.head: Message | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on: a head with the first part of its body, which ``_Together`` writes at once."""
        if self.replaced:
            return
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            if message["status"] >= 400 and is_plain(headers) and not self.scope["path"].startswith("/-/"):
                self.replaced = True
                await self.replace(message["status"], headers)
                return
            self.head = {**message, "headers": with_id(headers, self.request_id)}
            return
        if self.head is not None:
            head, self.head = self.head, None
            await self.inner_send(head)
        await self.inner_send(message)

    async def replace(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Serve's own error in our form."""
        body = error_body(status, self.request_id)
        kept = [(name, value) for name, value in headers if name in (b"retry-after", b"connection")]
        kept += (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())
        kept += (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")
        if status in (429, 503) and b"retry-after" not in dict(kept):
            kept.append((b"retry-after", b"1"))
        await self.inner_send(
            {"type": "http.response.start", "status": status, "headers": with_id(kept, self.request_id)}
        )
        await self.inner_send({"type": "http.response.body", "body": body, "more_body": False})


def error_body(status: int, request_id: str) -> bytes:
    """An error of Serve's, or of the connection, in our form."""
    kind, message = ERRORS.get(status) or (type_of(status), ERRORS[500 if status >= 500 else 400][1])
    return json.dumps({"error": {"type": kind, "message": message, "request_id": request_id}}).encode()


def is_plain(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether an answer is plain text, as Serve's and uvicorn's own errors are; the application's are JSON."""
    return dict(headers).get(b"content-type", b"text/plain").startswith(b"text/plain")


def with_id(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers with X-Request-Id once: Serve and the guard each add it."""
    kept = [header for header in headers if header[0] != b"x-request-id"]
    kept.append((b"x-request-id", request_id.encode()))
    return kept


class _Together:
    """A transport that writes together what it is given in one turn of the event loop.

    HAProxy repeats a request of which it got no answer. One whose replica died behind the head it could not repeat.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write it with what follows."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's connection with bounds on what comes before a request is whole, and on how many connections there are.

    uvicorn 0.54 has none of them; a body's are the guard's.
    """

    def __init__(self, config: uvicorn.Config, server_state: ServerState, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, server_state, *args, **kwargs)
        for headers in (config.encoded_headers, server_state.default_headers):
            if SERVER_HEADER in headers:
                headers.remove(SERVER_HEADER)
        self.head_bytes = 0
        self.body_parts = 0
        self.unread_bytes = 0
        self.head_timer: asyncio.TimerHandle | None = None
        self.refusal = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or close it where there are too many."""
        super().connection_made(_Together(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503)
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self.transport.is_closing():
            return
        if self.head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        # Counted until the parser gives something on: a value without end would be held whole.
        self.unread_bytes += len(data)
        super().data_received(data)
        if self.unread_bytes > MAX_HEAD_BYTES:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.head_bytes = self.body_parts = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, before the body or after it."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._head_came()
        self.unread_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.unread_bytes = 0
        self.body_parts += 1
        if self.body_parts > MAX_BODY_PARTS:
            raise ValueError(f"a body in more than {MAX_BODY_PARTS} parts")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come."""
        self.unread_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Called where the parser fails, and where one of the calls above raised."""
        self._refuse(self.refusal)

    def _count(self, num_bytes: int) -> None:
        self.head_bytes += num_bytes
        if self.head_bytes > MAX_HEAD_BYTES:
            self.refusal = 431
            raise ValueError(ERRORS[431][1])

    def _await_head(self) -> None:
        self.head_timer = self.loop.call_later(BUFFER_TIMEOUT_S, self._refuse, 408)

    def _head_came(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _refuse(self, status: int) -> None:
        """Answer, unless an answer is under way, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            request_id = new_request_id()
            body = error_body(status, request_id)
            headers = [
                STATUS_LINE[status].rstrip(),
                b"content-type: application/json",
                b"content-length: " + str(len(body)).encode(),
                b"x-request-id: " + request_id.encode(),
                b"x-content-type-options: nosniff",
                b"cache-control: no-store",
                b"connection: close",
            ]
            if status == 503:
                headers.append(b"retry-after: 1")
            self.transport.write(b"\r\n".join(headers) + b"\r\n\r\n" + body)
        self.transport.close()
