"""The front in a server like Serve's, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from raw_http import RawAnswer, exchange, head, read_answer
from starlette.types import Message, Receive, Scope, Send

from serve import front
from serve.front import BUFFER_BYTES, MAX_HEAD_BYTES, clean

pytestmark = pytest.mark.unit


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it saw; /plain/STATUS as Serve answers its own errors."""
    if scope["path"].startswith("/plain/"):
        status, headers = int(scope["path"].removeprefix("/plain/")), [(b"content-type", b"text/plain")]
    else:
        status, headers = 200, [(b"content-type", b"application/json"), (b"x-request-id", b"another")]
    body = repr(scope["headers"]).encode()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server with the front, started as Ray Serve starts its own."""
    before = dict(uvicorn.config.HTTP_PROTOCOLS), dict(uvicorn.config.WS_PROTOCOLS)
    application: Any = app
    for middleware in front.middlewares():
        application = middleware.cls(application, *middleware.args, **middleware.kwargs)
    server = uvicorn.Server(uvicorn.Config(lambda: application, factory=True, lifespan="off", log_config=None))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    for table, content in zip((uvicorn.config.HTTP_PROTOCOLS, uvicorn.config.WS_PROTOCOLS), before, strict=True):
        table.update(content)  # type: ignore[arg-type]


def seen(answer: RawAnswer) -> dict[bytes, bytes]:
    assert answer.status == 200 and "server" not in answer.headers
    return dict(eval(answer.body))


def test_headers_that_control_serve_and_other_bytes_do_not_reach_serve(port):
    for name in ("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve_multiplexed_model_id"):
        for value in (b"1", b"?1", b"\xff\xfe"):
            lines = (
                f"GET / HTTP/1.1\r\n{name}: ".encode() + value + b"\r\nX-Session-Id: \xff\r\ntraceparent: \xff\r\n\r\n"
            )
            headers = seen(exchange(port, lines))
            assert set(headers) == {b"x-request-id"}


def test_an_id_is_kept_or_made_and_given_back_once(port):
    for given, kept in (("abc", True), ("a b", False), ("\xff", False)):
        answer = exchange(port, f"GET / HTTP/1.1\r\nX-Request-Id: {given}\r\n\r\n".encode("latin-1"))
        assert answer.headers["x-request-id"].encode() == seen(answer)[b"x-request-id"]
        assert (answer.headers["x-request-id"] == given) == kept


def test_traces_that_can_be_read_are_kept():
    trace = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert trace in clean([trace])[0]


@pytest.mark.parametrize("status", [400, 404, 408, 429, 500, 503])
def test_serves_own_errors_take_our_form(port, status):
    answer = exchange(port, head("GET", f"/plain/{status}"))
    assert answer.status == status and answer.error["message"] and b"127.0.0.1" not in answer.body
    assert (
        answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
    )
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_plain_text_that_is_no_error_stays(port):
    assert exchange(port, head("GET", "/plain/200")).headers["content-type"] == "text/plain"


def test_a_head_leaves_with_the_first_part_of_its_body():
    left: list[str] = []

    async def send(message: Any) -> None:
        left.append(message["type"])

    async def answers_in_parts(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        assert left == [], "HAProxy cannot repeat a request of which it has the answer's head"
        for part in (b"{", b"}"):
            await send({"type": "http.response.body", "body": part, "more_body": part == b"{"})

    asyncio.run(front.Front(answers_in_parts)({"type": "http", "path": "/", "headers": []}, send, send))  # type: ignore[arg-type]
    assert left == ["http.response.start", "http.response.body", "http.response.body"]


def test_what_is_written_in_one_turn_leaves_at_once(port, monkeypatch):
    writes: list[bytes] = []
    flush = front._Together._flush

    def counted(self: Any) -> None:
        if self._parts:
            writes.append(b"".join(self._parts))
        flush(self)

    monkeypatch.setattr(front._Together, "_flush", counted)
    answer = exchange(port, head("GET", "/"))
    (written,) = writes
    assert written.startswith(b"HTTP/1.1 200") and written.endswith(answer.body)


def padded(num_bytes: int) -> bytes:
    """A head of so many bytes, as they are counted: the path, and names and values of headers."""
    rest = num_bytes - len("/") - len("a")
    return b"GET / HTTP/1.1\r\na: " + b"b" * rest + b"\r\n\r\n"


def test_a_head_is_taken_up_to_the_limit(port):
    assert exchange(port, padded(MAX_HEAD_BYTES - 1)).status == 200
    assert exchange(port, padded(MAX_HEAD_BYTES)).status == 200
    answer = exchange(port, padded(MAX_HEAD_BYTES + 1))
    assert answer.status == 431 and f"more than {MAX_HEAD_BYTES}" in answer.error["message"]


def test_many_small_headers_and_a_long_path_count_too(port):
    assert exchange(port, b"GET / HTTP/1.1\r\n" + b"ab: cd\r\n" * 9000 + b"\r\n").status == 431
    assert exchange(port, b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n").status == 431


def test_a_header_without_end_is_refused_before_it_has_come(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\na: " + b"b" * (MAX_HEAD_BYTES + 1))
        assert read_answer(connection).status == 431


def test_a_trailer_without_end_ends_the_connection(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\na: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1_000):  # what is in the buffers of sockets is not yet counted
                connection.sendall(b"b" * MAX_HEAD_BYTES)
            pytest.fail("a trailer of 32 MB was taken")


@pytest.mark.parametrize(("number", "taken"), [(19_999, True), (20_000, True), (20_001, False)])
def test_a_body_may_come_in_so_many_parts(port, number, taken):
    start = head(Transfer_Encoding="chunked")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(start + b"1\r\na\r\n" * number + b"0\r\n\r\n")
        if taken:
            assert read_answer(connection).status == 200
        else:
            with pytest.raises(AssertionError, match="the connection ended"):
                read_answer(connection)


def test_what_is_no_http_is_400(port):
    assert exchange(port, b"GET\x00 nonsense\r\n\r\n").error["type"] == "BadRequest"


def test_a_head_that_does_not_come_is_408(port, monkeypatch):
    monkeypatch.setattr(front, "BUFFER_TIMEOUT_S", 0.1)
    for first in (b"", b"GET / HTTP/1.1\r\na: b", b"\r\n"):
        assert exchange(port, first).error["type"] == "RequestTimeoutError"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:  # nor a second one
        connection.sendall(head("GET", "/"))
        assert read_answer(connection).status == 200
        connection.sendall(b"GET /")
        assert read_answer(connection).status == 408


def test_a_next_request_may_come_later(port, monkeypatch):
    monkeypatch.setattr(front, "BUFFER_TIMEOUT_S", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head("GET", "/"))
        assert read_answer(connection).status == 200
        threading.Event().wait(0.3)
        connection.sendall(head("GET", "/"))
        assert read_answer(connection).status == 200


@pytest.mark.slow
def test_serve_hears_of_a_request_when_its_body_has_come_as_far_as_a_buffer_holds_it(port, monkeypatch):
    monkeypatch.setattr(front, "BUFFER_TIMEOUT_S", 0.1)
    for length in (1, BUFFER_BYTES - 1):
        answer = exchange(port, head(Content_Length=1_000_000) + b"a" * length)
        assert answer.status == 408 and answer.error["type"] == "RequestTimeoutError"
        assert answer.headers["connection"] == "close"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head(Content_Length=1_000_000) + b"a" * BUFFER_BYTES)
        threading.Event().wait(0.3)
        connection.sendall(b"a" * (1_000_000 - BUFFER_BYTES))
        assert read_answer(connection).status == 200


def test_connections_above_the_limit_are_503(port, monkeypatch):
    monkeypatch.setattr(front, "MAX_CONNECTIONS", 3)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    assert exchange(port, head("GET", "/")).status == 200  # n
    idle.append(socket.create_connection(("127.0.0.1", port)))
    answer = exchange(port, head("GET", "/"))  # n + 1
    assert answer.status == 503 and answer.error["type"] == "ServiceUnavailable"
    for connection in idle:
        connection.close()


def test_a_change_to_a_websocket_is_answered_like_another_request(port):
    answer = exchange(
        port,
        head("GET", "/", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version=13, Sec_WebSocket_Key="YQ=="),
    )
    assert answer.status == 200


@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_before_each_further_part_of_a_large_body_there_is_a_pause(monkeypatch, num_parts):
    """What happens, in its order, and not how long it takes."""
    seen: list[Any] = []
    parts = [bytes([i]) * BUFFER_BYTES for i in range(num_parts)]
    coming = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
    coming.append({"type": "http.disconnect"})
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        if asyncio.get_running_loop() is not loop:  # a server of another test, which ticks in its thread
            await sleep(seconds)
            return
        seen.append(seconds)
        await sleep(0)

    async def receive() -> Message:
        return coming.pop(0)

    async def inner(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["body"])

    async def send(_: Message) -> None:
        raise AssertionError("nothing is answered")

    monkeypatch.setattr("asyncio.sleep", pause)
    scope = {"type": "http", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(front.Front(inner)(scope, receive, send))
    expected = [parts[0]]
    for part in parts[1:]:
        expected += front.PAUSE_S, part
    assert seen == expected and front.PAUSE_S > 0
