"""The guard, over a small application."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import serve.guard
from protclip.errors import ConfigError
from serve import openapi
from serve.context import RequestContext, current
from serve.errors import STATUSES, OverloadedError, RateLimitError, UnauthorizedError, answer_to
from serve.guard import Guard, guard
from serve.keys import new_key
from serve.settings import AppArgs, Limits

pytestmark = pytest.mark.unit
JSON = (b"content-type", b"application/json")
LIMITS = Limits(
    max_body_bytes=60,
    max_body_values=5,
    max_body_fields=3,
    max_held_bytes=100,
    body_timeout_s=0.05,
    request_timeout_s=0.2,
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on sending here."""
    monkeypatch.setattr(serve.guard, "LINGER_S", 0.01)


App = Callable[[Any, Any, Any], Awaitable[None]]


def arguments(**settings: Any) -> AppArgs:
    return AppArgs(checkpoint="/checkpoint", **{"keys": "none", "limits": LIMITS, **settings})


@dataclass
class Seen:
    """What the application behind the guard saw, and the client."""

    context: RequestContext | None = None
    body: bytes | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def error(self) -> dict[str, Any]:
        body = b"".join(message["body"] for message in self.messages[1:])
        return json.loads(body)["error"]  # type: ignore[no-any-return]


def ask(
    guarded: Any,
    seen: Seen,
    *parts: bytes,
    path: str = "/v1/search",
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,),
    server: str = "10.0.0.1",
    root_path: str = "",
    whole: bool = True,
) -> Seen:
    """Send a request; with ``whole`` False, its end never comes."""
    length = () if any(name == b"transfer-encoding" for name, _ in headers) else ((b"content-length", b"1"),)
    scope = {
        "type": "http",
        "method": "POST" if parts else "GET",
        "path": root_path + path,
        "root_path": root_path,
        "headers": [*(length if parts else ()), *headers],
        "server": (server, 8000),
    }
    asyncio.run(exchange(guarded, scope, seen, list(parts), whole))
    return seen


async def exchange(guarded: Any, scope: dict[str, Any], seen: Seen, waiting: list[bytes], whole: bool) -> None:
    async def receive() -> dict[str, Any]:
        if not waiting and not whole:
            await asyncio.sleep(60)
        part = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or not whole}

    async def send(message: dict[str, Any]) -> None:
        seen.messages.append(message)

    await guarded(scope, receive, send)


def application(seen: Seen, error: Exception | None = None, takes_s: float = 0) -> App:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        seen.context = current.get()
        message = await receive()
        seen.body = message["body"]
        if takes_s:
            await asyncio.sleep(takes_s)
        if error:
            raise error
        await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
        await send({"type": "http.response.body", "body": b"{}"})

    return app


def answer(*parts: bytes, args: AppArgs | None = None, **request: Any) -> Seen:
    seen = Seen()
    return ask(guard(application(seen), args or arguments()), seen, *parts, **request)


def test_a_request_reaches_the_app_whole_with_an_id_and_a_deadline():
    seen = answer(b"abc", b"", b"def")
    assert seen.status == 200 and seen.body == b"abcdef" and seen.context is not None
    assert re.fullmatch("[0-9a-f]{32}", seen.context.request_id)
    assert seen.headers["x-request-id"] == seen.context.request_id
    assert seen.headers["x-content-type-options"] == "nosniff" and seen.headers["cache-control"] == "no-store"
    assert current.get() is None


@pytest.mark.parametrize(
    ("given", "taken"),
    [(b"a-1_B.c", True), (b"a" * 128, True), (b"a" * 129, False), (b"", False), (b"a b", False), (b"\xff", False)],
)
def test_an_id_of_the_clients_is_kept_where_it_can_stand_in_logs(given, taken):
    seen = answer(headers=((b"x-request-id", given),))
    assert seen.status == 200 and (seen.headers["x-request-id"].encode() == given) == taken


def test_a_body_is_taken_up_to_the_limit_however_it_comes():
    for parts in ((b"a" * 59,), (b"a" * 60,), (b"a" * 30, b"a" * 30)):
        assert answer(*parts).status == 200
        announced = (b"content-length", b"%d" % sum(map(len, parts)))
        assert answer(*parts, headers=(JSON, announced)).status == 200
    refused = [
        answer(b"a" * 61),
        answer(b"a" * 30, b"a" * 31, headers=(JSON, (b"transfer-encoding", b"chunked"))),
        answer(b"a", headers=(JSON, (b"content-length", b"61"))),
        answer(b"a", headers=(JSON, (b"content-length", b"9" * 5000))),
        answer(b"a", headers=(JSON, (b"content-length", b"-1"))),
    ]
    for seen in refused:
        assert (seen.status, seen.error["type"], seen.body) == (413, "PayloadTooLargeError", None)
        assert " 60 " in seen.error["message"] and seen.headers["connection"] == "close"
    assert "has 61 bytes" in refused[2].error["message"]
    assert all("has more than 60 bytes" in refused[i].error["message"] for i in (0, 1, 4))


def test_a_body_that_does_not_come_is_408():
    seen = answer(b"abc", whole=False)
    assert (seen.status, seen.error["type"], seen.body) == (408, "RequestTimeoutError", None)
    assert "3 bytes had come" in seen.error["message"] and seen.headers["connection"] == "close"


def test_values_are_counted_before_anything_is_parsed():
    for number, status in ((4, 200), (5, 200), (6, 422)):
        seen = answer(b"[" + b",".join([b"1"] * number) + b"]")
        assert seen.status == status
    assert seen.body is None and "holds 6 values" in seen.error["message"] and "at most 5" in seen.error["message"]


def test_fields_are_counted_before_anything_is_parsed():
    for number, status in ((2, 200), (3, 200), (4, 422)):
        seen = answer(b"{" + b",".join([b'"a" :1'] * number) + b"}")
        assert seen.status == status
    assert seen.body is None and "holds 4 fields" in seen.error["message"] and "at most 3" in seen.error["message"]


def test_bodies_have_a_limit_together_and_are_let_go():
    seen = Seen()
    guarded = Guard(application(seen), arguments(), clock=lambda: 0.0)

    async def together(sizes: tuple[int, int]) -> list[int]:
        both = [Seen(), Seen()]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [JSON, (b"content-length", b"1")]}
        half = exchange(guarded, dict(scope), both[0], [b"a" * sizes[0]], False)
        task = asyncio.create_task(half)
        await asyncio.sleep(0.01)
        await exchange(guarded, dict(scope), both[1], [b"a" * sizes[1]], True)
        await task
        return [one.status for one in both]

    assert asyncio.run(together((50, 49))) == [408, 200]
    assert asyncio.run(together((50, 50))) == [408, 200]
    assert asyncio.run(together((50, 51))) == [408, 503]
    assert guarded.held_bytes == 0


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate, gzip", b"br"])
def test_an_encoded_body_is_415(encoding):
    seen = answer(b"\x1f\x8b", headers=(JSON, (b"content-encoding", encoding)))
    assert (seen.status, seen.error["type"], seen.body) == (415, "EncodingError", None)
    assert answer(b"{}", headers=(JSON, (b"content-encoding", b"Identity"))).status == 200


@pytest.mark.parametrize("kind", [b"text/plain", b"", b"application/x-www-form-urlencoded", b"text/json"])
def test_a_body_of_another_type_is_422(kind):
    seen = answer(b"{}", headers=((b"content-type", kind),))
    assert seen.status == 422 and "Content-Type: application/json" in seen.error["message"]
    assert answer(b"{}", headers=((b"content-type", b"Application/JSON; charset=utf-8"),)).status == 200


@pytest.mark.parametrize(
    ("host", "server", "allowed"),
    [
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:1", "127.0.0.1", True),
        ("[::1]:8000", "::1", True),
        ("server.lab", "127.0.0.1", True),
        ("evil.example.org:8000", "127.0.0.1", False),
        ("127.0.0.1.evil.org", "127.0.0.1", False),
        ("10.0.0.1", "127.0.0.1", False),
        ("evil.example.org", "10.0.0.1", True),
    ],
)
def test_on_the_loopback_a_foreign_host_is_refused(host, server, allowed):
    seen = answer(args=arguments(allowed_hosts=("Server.lab",)), headers=((b"host", host.encode()),), server=server)
    assert seen.status == (200 if allowed else 403)
    if not allowed:
        assert seen.error["type"] == "ForbiddenHostError" and host in seen.error["message"]


def test_a_request_without_a_host_comes_from_no_browser():
    assert answer(server="127.0.0.1", headers=()).status == 200


def test_with_keys_nobody_is_answered_without_one_but_on_the_open_paths(tmp_path):
    key, line = new_key("alice", rate=2)
    (tmp_path / "keys").write_text(line)
    args = arguments(keys=str(tmp_path / "keys"))
    seen = answer(b"{}", args=args)
    assert (seen.status, seen.error["type"], seen.headers["www-authenticate"]) == (401, "UnauthorizedError", "Bearer")
    for path in ("/v1/embed", "/metrics", "/info", "/v1/indexes", "/nothing", "/docsx", "/health/x", "/webx", "/web"):
        assert answer(args=args, path=path).status == 401
        assert answer(args=args, path=path, root_path="/prefix").status == 401
    for path in ("/health", "/health/live", "/health/ready", "/docs", "/docs/a.css", "/openapi.json", "/", "/web/a.js"):
        assert answer(args=args, path=path).status == 200
        assert answer(args=args, path=path, root_path="/prefix").status == 200
    guarded = guard(application(seen := Seen()), args)
    bearer = (JSON, (b"authorization", b"Bearer " + key.encode()))
    statuses = []
    for _ in range(3):
        seen.messages.clear()
        statuses.append(ask(guarded, seen, b"{}", headers=bearer).status)
    assert statuses == [200, 200, 429] and "'alice'" in seen.error["message"]
    assert seen.headers["retry-after"] == "1" and seen.error["type"] == "RateLimitError"


def test_with_keys_any_host_is_served_since_replicas_behind_haproxy_listen_on_the_loopback(tmp_path):
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    args = arguments(keys=str(tmp_path / "keys"))
    host = (b"host", b"server.example.org")
    bearer = (b"authorization", b"Bearer " + key.encode())
    assert answer(b"{}", args=args, headers=(JSON, host, bearer), server="127.0.0.1").status == 200
    assert answer(b"{}", args=args, headers=(JSON, host), server="127.0.0.1").status == 401


def test_a_request_that_takes_too_long_is_503():
    seen = Seen()
    ask(guard(application(seen, takes_s=5), arguments()), seen, b"{}")
    assert (seen.status, seen.error["type"], seen.headers["retry-after"]) == (503, "DeadlineError", "1")


def test_a_failure_of_ours_is_answered_without_details_and_logged_with_the_id(caplog):
    seen = Seen()
    ask(guard(application(seen, error=KeyError("secret")), arguments()), seen, b"{}")
    assert (seen.status, seen.error["type"]) == (500, "InternalError") and "secret" not in str(seen.error)
    assert seen.error["request_id"] in caplog.text and "secret" in caplog.text


def test_pages_of_the_listed_origins_may_ask():
    def allowed(origin: str) -> str | None:
        seen = answer(
            b"{}", args=arguments(cors_origins=("https://a.org",)), headers=(JSON, (b"origin", origin.encode()))
        )
        assert seen.status == 200
        return seen.headers.get("access-control-allow-origin")

    assert allowed("https://a.org") == "https://a.org" and allowed("https://b.org") is None
    assert "access-control-allow-origin" not in answer(b"{}", headers=(JSON, (b"origin", b"https://a.org"))).headers


def test_a_websocket_is_refused():
    seen = Seen()
    asyncio.run(exchange(guard(application(seen), arguments()), {"type": "websocket"}, seen, [], True))
    assert [message["type"] for message in seen.messages] == ["websocket.close"]


def test_a_line_of_the_log_has_no_query_unless_asked(tmp_path):
    for log_queries in (False, True):
        path = tmp_path / f"{log_queries}.jsonl"
        args = arguments(request_log=str(path), log_queries=log_queries)
        seen = answer(b'{"text": "secret"}', args=args)
        answer(b"{}", args=args, headers=())
        first, second = (json.loads(line) for line in path.read_text().splitlines())
        assert (first["request_id"], first["status"], first["received_bytes"]) == (
            seen.headers["x-request-id"],
            200,
            18,
        )
        assert second["status"] == 422 and first["ms"] >= 0 and first["sent_bytes"] == 2
        assert first.get("body") == ('{"text": "secret"}' if log_queries else None)


def test_the_log_has_the_name_of_the_key(tmp_path):
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    args = arguments(keys=str(tmp_path / "keys"), request_log=str(tmp_path / "log"))
    answer(b"{}", args=args, headers=(JSON, (b"authorization", b"Bearer " + key.encode())))
    answer(b"{}", args=args)
    assert [json.loads(line)["key"] for line in (tmp_path / "log").read_text().splitlines()] == ["alice", None]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"request_log: .*nowhere/log cannot be written"):
        guard(application(Seen()), arguments(request_log=str(tmp_path / "nowhere/log")))


RETRY = {"retry_after_s": 2.1}


@pytest.mark.parametrize("kind", STATUSES)
def test_each_error_of_the_table_has_its_status_and_is_described(kind):
    waits = issubclass(kind, OverloadedError | RateLimitError)
    answer = answer_to(kind("why", **RETRY) if waits else kind("why"))
    assert answer.status_code == STATUSES[kind] and answer.headers.get("retry-after") == ("3" if waits else None)
    assert json.loads(bytes(answer.body))["error"]["type"] == kind.__name__
    if STATUSES[kind] != 500:
        assert openapi.ERRORS[STATUSES[kind]][0] == kind.__name__


def test_the_schemas_examples_of_errors_are_what_the_guard_says(tmp_path):
    key, line = new_key("alice", rate=20)
    (tmp_path / "keys").write_text(line)
    limits = Limits()
    open_, closed = arguments(limits=limits), arguments(limits=limits, keys=str(tmp_path / "keys"))
    found = {
        401: answer(b"{}", args=closed),
        403: answer(b"{}", args=open_, server="127.0.0.1", headers=(JSON, (b"host", b"evil.example.org"))),
        413: answer(b"{}", args=open_, headers=(JSON, (b"content-length", b"5000000"))),
        415: answer(b"{}", args=open_, headers=(JSON, (b"content-encoding", b"gzip"))),
    }
    guarded = guard(application(seen := Seen()), closed, clock=lambda: 0.0)
    for _ in range(21):
        seen.messages.clear()
        found[429] = ask(guarded, seen, b"{}", headers=(JSON, (b"authorization", b"Bearer " + key.encode())))
    for status, seen in found.items():
        assert (seen.status, seen.error["type"], seen.error["message"]) == (status, *openapi.ERRORS[status][:2])


def test_errors_say_when_to_ask_again_and_how_to_show_a_key():
    assert answer_to(OverloadedError("full", retry_after_s=0.0)).headers["retry-after"] == "1"
    assert answer_to(RateLimitError("much", retry_after_s=0.2)).headers["retry-after"] == "1"
    assert answer_to(UnauthorizedError("who")).headers["www-authenticate"] == "Bearer"
