"""The routes over a backend that fails."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any

import pytest

from protclip.errors import CheckpointError, ConfigError, DataError, IndexMismatchError, NotFoundError, RequestError
from protclip.questions import Answer, Asked, Explanation, Protein
from serve.answers import ModelInfo, NamedIndex
from serve.api import make_api
from serve.errors import OverloadedError
from serve.guard import guard
from serve.metrics import CountRequests, Load, Metrics
from serve.settings import AppArgs, Limits

pytestmark = pytest.mark.unit
ARGS = AppArgs(checkpoint="/checkpoint", keys="none")


INDEX = NamedIndex(
    name="default",
    content="protein",
    count=60,
    dimension=24,
    dtype="float32",
    recall_at_10=None,
    fingerprint="e" * 64,
    model="f" * 64,
    created=None,
    age_s=None,
)


class FailingBackend:
    """Fails with the given exception wherever it is asked."""

    fingerprint = "f" * 64

    def __init__(self, error: Exception, *, batch_s: float = 0) -> None:
        self.error = error
        self.batch_s = batch_s
        self.metrics = Metrics()

    async def embed(self, _questions: Any, **_long: Any) -> list[Asked]:
        raise self.error

    async def search(self, _question: Any, _options: Any, **_index: str) -> list[Answer]:
        raise self.error

    async def explain(self, _text: str, **_options: Any) -> Explanation:
        raise self.error

    async def protein(self, _accession: str, **_index: str) -> Protein:
        raise self.error

    def describe_model(self) -> ModelInfo:
        raise self.error

    def describe_indexes(self) -> list[NamedIndex]:
        return [INDEX]

    def index_dimension(self, _index: str) -> int:
        raise self.error

    def refused(self) -> str | None:
        return None

    def load(self) -> Load:
        return Load(num_items=0, num_tokens=0, num_explanations=0, batch_s=self.batch_s)


def ask(
    error: Exception, method: str, path: str, body: bytes = b"", *, batch_s: float = 0
) -> tuple[int, dict[bytes, bytes], Any]:
    """Status, headers and JSON of one request to the routes over a failing backend."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }
    app = guard(make_api(FailingBackend(error, batch_s=batch_s), Limits(), stuck_after_s=60), ARGS)
    asyncio.run(app(scope, receive, send))
    answer = json.loads(sent[1]["body"])
    headers = dict(sent[0]["headers"])
    if "error" in answer:
        answer = answer["error"]
        assert answer.pop("request_id") == headers[b"x-request-id"].decode()
    return sent[0]["status"], headers, answer


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/embed", b'{"proteins": ["M"]}'), ("/v1/explain", b'{"text": "a", "sequence": "M"}')]
)
def test_an_overloaded_server_says_when_to_ask_again(path, body):
    status, headers, error = ask(OverloadedError("full", retry_after_s=2.5), "POST", path, body)
    assert (status, headers[b"retry-after"], error) == (
        503,
        b"3",
        {"type": "OverloadedError", "message": "full"},
    )


def test_a_failure_of_ours_tells_the_client_no_details():
    status, _, error = ask(KeyError("secret/path"), "POST", "/v1/search", b'{"text": "a"}')
    assert status == 500 and error["type"] == "InternalError" and "secret" not in error["message"]


class TomorrowsError(NotFoundError):
    """A class that no table knows."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("filter: …"), 422),
        (NotFoundError("accession: …"), 404),
        (TomorrowsError("accession: …"), 404),
        (DataError("a file of the server: …"), 500),
        (ConfigError("…"), 500),
        (CheckpointError("…"), 500),
        (IndexMismatchError("…"), 500),
    ],
)
def test_the_status_says_whose_fault_it_is(error, status):
    found, _, body = ask(error, "POST", "/v1/search", b'{"text": "a"}')
    assert (found, body) == (status, {"type": type(error).__name__, "message": str(error)})


def test_a_replica_whose_batch_takes_too_long_is_alive_and_not_ready():
    for batch_s, expected in ((60, 200), (60.5, 503)):
        assert ask(KeyError(), "GET", "/health/live", batch_s=batch_s)[0] == 200
        status, _, body = ask(KeyError(), "GET", "/health/ready", batch_s=batch_s)
        assert status == expected
    assert body["type"] == "NotReadyError" and "for 60 s" in body["message"]


def test_an_unknown_name_has_no_route_of_its_own_in_the_numbers():
    backend = FailingBackend(RequestError("no"))
    app = CountRequests(make_api(backend, Limits(), stuck_after_s=60), backend.metrics)
    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": []}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        pass

    for path in ("/secret/1", "/secret/2", "/v1/proteins/P1"):
        asyncio.run(app({**scope, "path": path, "raw_path": path.encode()}, receive, send))
    text = backend.metrics.text().decode()
    assert 'protclip_requests_total{route="other",status="404"} 2.0' in text
    assert 'protclip_requests_total{route="/v1/proteins/{accession}",status="422"} 1.0' in text
    assert 'protclip_index_rows{index="default"} 60.0' in text
    assert 'protclip_index_recall_at_10{index="default"} NaN' in text


@pytest.mark.parametrize(
    ("error", "begun", "status"),
    [
        (asyncio.CancelledError(), False, 499),
        (None, False, 499),
        (KeyError(), False, 500),
        (asyncio.CancelledError(), True, 200),
        (KeyError(), True, 200),
    ],
)
def test_a_client_that_goes_away_is_no_failure_of_ours(error, begun, status):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if error is not None:
            raise error

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    metrics = Metrics()
    with pytest.raises(type(error)) if error is not None else nullcontext():
        asyncio.run(CountRequests(app, metrics)({"type": "http"}, receive, send))
    assert f'protclip_requests_total{{route="other",status="{status}"}} 1.0' in metrics.text().decode()


def test_the_schema_asks_for_a_key_where_one_is_asked_for():
    for secured in (False, True):
        schema = make_api(FailingBackend(KeyError()), Limits(), stuck_after_s=60, secured=secured).app.openapi()
        assert ("securitySchemes" in schema["components"]) == secured
        assert schema["paths"]["/v1/search"]["post"].get("security") == ([{"key": []}] if secured else None)
        assert schema["paths"]["/health"]["get"].get("security") == ([] if secured else None)
