"""The routes over a backend that fails."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from protclip.errors import CheckpointError, ConfigError, DataError, IndexMismatchError, NotFoundError, RequestError
from protclip.questions import Answer, Asked
from serve.api import make_api
from serve.errors import OverloadedError
from serve.schemas import IndexInfo
from serve.settings import Limits

pytestmark = pytest.mark.unit


class FailingBackend:
    """Fails with the given exception wherever it is asked."""

    fingerprint = "f" * 64

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def embed(self, _questions: Any) -> list[Asked]:
        raise self.error

    async def search(self, _question: Any, _options: Any) -> Answer:
        raise self.error

    async def describe_index(self) -> IndexInfo:
        raise self.error


def ask(error: Exception, method: str, path: str, body: bytes = b"") -> tuple[int, dict[bytes, bytes], Any]:
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
        "headers": [(b"content-type", b"application/json")],
    }
    app = make_api(FailingBackend(error), Limits())
    try:
        asyncio.run(app(scope, receive, send))
    except type(error):
        pass  # raised again for the server's log, after the answer
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])["error"]


def test_an_overloaded_server_says_when_to_ask_again():
    status, headers, error = ask(OverloadedError("full"), "POST", "/v1/embed", b'{"proteins": ["M"]}')
    assert (status, headers[b"retry-after"], error) == (
        503,
        b"1",
        {"type": "OverloadedError", "message": "full", "request_id": None},
    )


def test_what_failed_in_another_process_is_told_by_its_cause():
    cause = ConfigError("the setting x=1 cannot work.")
    wrapped = RayTaskError("f", "Traceback …", cause).as_instanceof_cause()
    assert isinstance(wrapped, ConfigError) and str(wrapped) != str(cause)
    status, _, error = ask(wrapped, "POST", "/v1/search", b'{"text": "a"}')
    assert (status, error) == (500, {"type": "ConfigError", "message": str(cause), "request_id": None})


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
    assert (found, body) == (status, {"type": type(error).__name__, "message": str(error), "request_id": None})
