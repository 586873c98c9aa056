"""Requests that no client library sends, over a plain socket."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """The first answer on a connection."""

    status: int
    headers: dict[str, str]
    """Names in small letters; each stands there once."""
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """What stands in the envelope, which has the id of the header."""
        content = json.loads(self.body)
        assert set(content) == {"error"} and set(content["error"]) == {"type", "message", "request_id"}
        assert content["error"]["request_id"] == self.headers["x-request-id"]
        return content["error"]  # type: ignore[no-any-return]


def exchange(port: int, *parts: bytes, timeout_s: float = 30) -> RawAnswer:
    """Send the parts, as far as they are taken, and read until the connection ends or the answer is whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        with contextlib.suppress(ConnectionError):  # it may have been closed, with an answer
            for part in parts:
                connection.sendall(part)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> RawAnswer:
    """The next answer on a connection, of those that say their length."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while not (whole := _parsed(received)):
            part = connection.recv(65536)
            if not part:
                break
            received += part
        else:
            return whole
    raise AssertionError(f"the connection ended after {received!r}")


def head(method: str = "POST", path: str = "/v1/embed", version: str = "1.1", **headers: Any) -> bytes:
    """A request's head; names of headers with _ for -."""
    lines = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _parsed(received: bytes) -> RawAnswer | None:
    first, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    status, *lines = first.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len(headers) == len(lines), f"a header stands twice in {lines}"
    if len(body) < int(headers["content-length"]):
        return None
    return RawAnswer(status=int(status.split()[1]), headers=headers, body=body)
