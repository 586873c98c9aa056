"""Requests that could stop a server, and a client that asks meanwhile, each a process of its own.

``python hostile.py NAME PORT SECONDS`` sends one kind again and again for a while and prints, as JSON, how often each
status came; ``python hostile.py good_client PORT SECONDS`` prints the times of its requests. See ``beside``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gzip
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from raw_http import exchange, head, read_answer

PAUSE_S = 0.25
"""Between two requests of a kind: the sender must not need the cores on which the server runs."""
CLOSED, BLOCKED = "closed", "blocked"
"""In place of a status, where the connection ended without an answer, or no more was taken of what was sent."""

Statuses = collections.Counter[str]


def post(port: int, body: bytes, path: str = "/v1/embed", **headers: Any) -> str:
    return status(port, head("POST", path, Content_Type="application/json", Content_Length=len(body), **headers), body)


def status(port: int, *parts: bytes) -> str:
    try:
        return str(exchange(port, *parts).status)
    except (AssertionError, ConnectionError):
        return CLOSED
    except TimeoutError:
        return BLOCKED


def numbers(port: int) -> Iterator[str]:
    """Two million numbers where sequences stand."""
    yield post(port, b'{"proteins":[' + b"1," * 1_999_999 + b"1]}")


def empty_strings(port: int) -> Iterator[str]:
    """A million of them."""
    yield post(port, b'{"proteins":[' + b'"",' * 999_999 + b'""]}')


def letters(port: int) -> Iterator[str]:
    """As many sequences of one letter as pass the count of values."""
    yield post(port, b'{"proteins":[' + b'"M",' * 65_000 + b'"M"]}')


def keys(port: int) -> Iterator[str]:
    """380,000 fields."""
    yield post(port, b"{" + b",".join(b'"%06d":1' % i for i in range(380_000)) + b"}")


def fewer_keys(port: int) -> Iterator[str]:
    """As many fields as pass the count before parsing."""
    yield post(port, b"{" + b",".join(b'"%06d":1' % i for i in range(8_000)) + b"}")


def most_fields(port: int) -> Iterator[str]:
    """As many as pass the count of values alone."""
    yield post(port, b"{" + b",".join(b'"%06d":1' % i for i in range(65_000)) + b"}")


def many_inputs(port: int) -> Iterator[str]:
    """10,000 strings in OpenAI's shape."""
    body = {"model": "protclip-protein", "input": ["MKTAYIAKQR"] * 10_000}
    yield post(port, json.dumps(body).encode(), "/v1/embeddings")


def half_bodies(port: int) -> Iterator[str]:
    """1,010 bodies of which a part comes, and no more."""
    half = head("POST", "/v1/embed", Content_Type="application/json", Content_Length=1_000) + b'{"proteins":'
    yield from held(port, half, 1_010)


def half_large_bodies(port: int) -> Iterator[str]:
    """200 bodies of which more has come than a buffer of HAProxy's."""
    start = head("POST", "/v1/embed", Content_Type="application/json", Content_Length=1_000_000)
    yield from held(port, start + b'{"proteins":["' + b"M" * 100_000, 200)


def half_heads(port: int) -> Iterator[str]:
    """200 heads of which a part comes, and no more."""
    yield from held(port, b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Part: a", 200)


def silent(port: int) -> Iterator[str]:
    """1,010 connections that send nothing."""
    yield from held(port, b"", 1_010)


def held(port: int, start: bytes, number: int) -> Iterator[str]:
    """The statuses of connections that send the start of a request and then wait."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(number):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            connections.append(connection)
            connection.sendall(start)
        for connection in connections:
            try:
                yield str(read_answer(connection).status)
            except (AssertionError, ConnectionError):
                yield CLOSED


def large_header(port: int) -> Iterator[str]:
    """A header of 150 MB."""
    yield status(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Large: ", *[b"a" * 1_000_000] * 150, b"\r\n\r\n")


def many_headers(port: int) -> Iterator[str]:
    """150 MB of small headers."""
    yield status(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[b"X-Small: a\r\n" * 100_000] * 125, b"\r\n")


@functools.cache
def bomb() -> bytes:
    return gzip.compress(bytes(200_000_000))


def gzip_bomb(port: int) -> Iterator[str]:
    """200 kB that would become 200 MB."""
    yield post(port, bomb(), Content_Encoding="gzip")


def endless_chunks(port: int) -> Iterator[str]:
    """A body without end."""
    start = head("POST", "/v1/embed", Content_Type="application/json", Transfer_Encoding="chunked")
    yield status(port, start, *[b"%x\r\n" % 100_000 + b" " * 100_000 + b"\r\n"] * 1_000)


def small_chunks(port: int) -> Iterator[str]:
    """A body in chunks of one byte."""
    start = head("POST", "/v1/embed", Content_Type="application/json", Transfer_Encoding="chunked")
    yield status(port, start, *[b"1\r\n \r\n" * 10_000] * 100)


def deep(port: int) -> Iterator[str]:
    """A list in a list, two million times; and objects, and what closes them."""
    yield post(port, b"[" * 2_000_000)
    yield post(port, b'{"proteins":' * 300_000)
    yield post(port, b"[" * 50_000 + b"]" * 50_000)


def not_finite(port: int) -> Iterator[str]:
    """Numbers that JSON does not have."""
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        yield post(port, b'{"text":"a","min_score":' + number + b"}", "/v1/search")
        yield post(port, b'{"embedding":[' + number + b"]}", "/v1/search")
        yield post(port, b'{"text":"a","k":' + number + b"}", "/v1/search")


def old_version(port: int) -> Iterator[str]:
    """HTTP/1.0."""
    yield status(port, head("GET", "/health", "1.0"))
    body = b'{"text":"kinase"}'
    yield status(
        port, head("POST", "/v1/search", "1.0", Content_Type="application/json", Content_Length=len(body)) + body
    )


def websocket(port: int) -> Iterator[str]:
    """A change to a WebSocket."""
    upgrade: dict[str, Any] = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": 13,
        "Sec_WebSocket_Key": "YQ==",
    }
    for path in ("/health", "/v1/search"):
        yield status(port, head("GET", path, **upgrade))


def other_letters(port: int) -> Iterator[str]:
    """Bytes beyond ASCII in headers that Serve reads."""
    for name in ("x-request-id", "serve_multiplexed_model_id", "x-request-disconnect-disabled", "traceparent"):
        yield status(port, f"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n{name}: ".encode() + b"\xff\xfe\r\n\r\n")


KINDS: dict[str, tuple[Callable[[int], Iterator[str]], set[str]]] = {
    "numbers": (numbers, {"422"}),
    "empty_strings": (empty_strings, {"422"}),
    "letters": (letters, {"422"}),
    "keys": (keys, {"422"}),
    "fewer_keys": (fewer_keys, {"422"}),
    "most_fields": (most_fields, {"422"}),
    "many_inputs": (many_inputs, {"422"}),
    "half_bodies": (half_bodies, {"408"}),
    "half_large_bodies": (half_large_bodies, {"408"}),
    "half_heads": (half_heads, {"408"}),
    "silent": (silent, {"408", CLOSED}),
    "large_header": (large_header, {"400", "431", CLOSED}),
    "many_headers": (many_headers, {"400", "431", CLOSED}),
    "gzip_bomb": (gzip_bomb, {"415"}),
    "endless_chunks": (endless_chunks, {"413", CLOSED}),
    "small_chunks": (small_chunks, {"408", "422", CLOSED}),
    "deep": (deep, {"422"}),
    "not_finite": (not_finite, {"422"}),
    "old_version": (old_version, {"200"}),
    "websocket": (websocket, {"200", "400", "405"}),
    "other_letters": (other_letters, {"200"}),
}
"""Each kind with the answers that it may get."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Of a good client's requests."""

    number: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def good_client(port: int, seconds: float) -> Times:
    """A search and a wait of its length, again and again."""
    took, failed = [], 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            connection.request("POST", "/v1/search", b'{"text":"kinase"}', {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            failed += answer.status != 200
        except (http.client.HTTPException, OSError):
            failed += 1
            connection.close()
        took.append(time.monotonic() - began)
        time.sleep(took[-1])
    p99 = statistics.quantiles([*took, took[-1]], n=100)[98]  # of one, too
    ms = [round(value * 1e3, 1) for value in (statistics.median(took), p99, max(took))]
    return Times(number=len(took), failed=failed, p50_ms=ms[0], p99_ms=ms[1], max_ms=ms[2])


def hostile_client(kind: str, port: int, seconds: float) -> Statuses:
    """One kind of request again and again, at least once."""
    send, found = KINDS[kind][0], Statuses()
    end = time.monotonic() + seconds
    while True:
        found.update(send(port))
        if time.monotonic() > end:
            return found
        time.sleep(PAUSE_S)


def start(name: str, port: int, seconds: float) -> subprocess.Popen[str]:
    """A client in a process of its own."""
    command = [sys.executable, __file__, name, str(port), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def beside(kind: str | None, port: int, seconds: float) -> tuple[Times, Statuses]:
    """A good client's times beside a hostile one (None: alone), and what the hostile one was answered."""
    hostile = None if kind is None else start(kind, port, seconds)
    good = start("good_client", port, seconds)
    times = Times(**json.loads(good.communicate()[0]))
    return times, Statuses() if hostile is None else Statuses(json.loads(hostile.communicate()[0]))


if __name__ == "__main__":
    name, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if name == "good_client":
        print(json.dumps(asdict(good_client(port, seconds))))
    else:
        print(json.dumps(hostile_client(name, port, seconds)))
