"""A network that is not there, or gives no answer."""

from __future__ import annotations

import socket
import threading

import pytest
from urllib3.util.retry import Retry

from protclip import http_client
from protclip.errors import ConfigError, DataError
from protclip.http_client import Client

pytestmark = pytest.mark.unit


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("NO_PROXY", "*")
    return Client(retries=Retry(total=0))


@pytest.mark.slow
def test_no_network_is_one_error_in_one_line(client: Client) -> None:
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))  # so that nobody else listens there
        refusing, mute = (f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in (closed, silent))
        for url in (refusing, "http://no-such-host.invalid", "nonsense", mute):
            with pytest.raises(ConfigError, match="cannot be reached") as caught:
                client.reach(url, patience_s=1)
            assert "\n" not in str(caught.value)
            assert "HTTPConnection" not in str(caught.value)


def test_a_silent_server_is_named_without_the_clients_internals(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "READ_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DataError, match=r"failed 1 times, at last: Read timed out\."):
            client.get(url, lambda response: response.content)


def test_a_name_server_that_never_answers_is_not_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def look_up(*_: object) -> None:
        released.wait(20)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(ConfigError, match=r"no answer within 0\.2 s"):
        client.reach("http://example.org", patience_s=0.2)
    released.set()
