"""A cluster that cannot be joined is one line in seconds, with what was tried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import address
from cluster.address import checked_address
from protclip.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Where an earlier test had Ray look at its token mode, which it does once in a process, Ray needs one all the same.
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(address, "TIMEOUT_S", 0.5)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _refusal(named: str) -> str:
    with pytest.raises(ConfigError) as caught:
        checked_address(named)
    message = str(caught.value)
    assert message.startswith(f"RAY_ADDRESS={named}") or message.startswith(f"RAY_ADDRESS='{named}'")
    assert "\n" not in message
    return message


def test_a_dead_address(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    listening.close()
    assert f"nothing takes connections at 127.0.0.1:{port} (Connection refused" in _refusal(f"127.0.0.1:{port}")


@pytest.mark.parametrize("host", ["nowhere.invalid", "no..where"])
def test_a_host_that_does_not_exist(host: str) -> None:
    assert f"nothing takes connections at {host}:6379" in _refusal(f"{host}:6379")


@pytest.mark.slow
def test_a_server_that_says_nothing(listening: socket.socket) -> None:
    where = f"127.0.0.1:{listening.getsockname()[1]}"
    assert "takes connections, and " in _refusal(where)


def test_a_server_that_speaks_something_else(listening: socket.socket) -> None:
    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    message = _refusal(f"127.0.0.1:{listening.getsockname()[1]}")
    listening.shutdown(socket.SHUT_RDWR)
    assert "takes connections, and " in message


@pytest.mark.parametrize(
    ("named", "instead"),
    [
        ("ray://head:10001", "host:port of the GCS"),
        ("http://head:8265", "RAY_API_SERVER_ADDRESS=http://head:8265"),
        ("https://head", "RAY_API_SERVER_ADDRESS=https://head"),
        ("head", "allowed are host:port"),
        ("head:", "allowed are host:port"),
        (":6379", "allowed are host:port"),
        ("head:port", "allowed are host:port"),
        ("head:99999", "allowed are host:port"),
    ],
)
def test_what_is_no_address_of_a_gcs_is_told_what_to_give(named: str, instead: str) -> None:
    assert instead in _refusal(named)


def test_auto_needs_a_ray_start_of_the_same_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert "no `ray start` on this machine left an address" in _refusal("auto")


def test_tokens_are_not_switched_off_where_others_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE=disabled with RAY_ADDRESS=10\.0\.0\.1:6379"):
        checked_address("10.0.0.1:6379")
