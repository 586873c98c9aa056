"""What the environment says about Ray: an empty variable is an unset one, and nothing opens a door by accident."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import environment
from cluster.connection import start_or_join
from protclip.errors import ConfigError

pytestmark = pytest.mark.unit

NAMES = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", *environment.LOOPBACK_ONLY)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch):
    """The variables about Ray after those given were prepared."""

    def prepare(**given: str) -> dict[str, str]:
        monkeypatch.setattr(os, "environ", dict(given))
        environment.prepare_environment()
        return {name: os.environ[name] for name in NAMES if name in os.environ}

    return prepare


OWN = {"RAY_AUTH_MODE": "token", **environment.LOOPBACK_ONLY}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"RAY_ADDRESS": "", "RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": " ", "RAY_AUTH_TOKEN_PATH": ""},
        {"RAY_ADDRESS": "local"},
        {"RAY_ADDRESS": " ", "RAY_AUTH_MODE": "token"},
    ],
)
def test_an_empty_variable_is_an_unset_one_and_our_own_ray_has_a_token(prepared, given: dict[str, str]) -> None:
    assert prepared(**given) == OWN
    assert environment.address() is None


def test_what_is_set_stays(prepared) -> None:
    assert prepared(RAY_ADDRESS="10.0.0.1:6379") == {"RAY_ADDRESS": "10.0.0.1:6379"}
    there = {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "token"}
    assert prepared(**there) == {**there, "RAY_AUTH_TOKEN_PATH": str(Path("token").absolute())}
    assert prepared(RAY_AUTH_MODE="disabled") == {"RAY_AUTH_MODE": "disabled", **environment.LOOPBACK_ONLY}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_ray_on_the_loopback_is_looked_for_there(prepared, host: str) -> None:
    assert prepared(RAY_ADDRESS=f"{host}:6379") == {"RAY_ADDRESS": f"{host}:6379", **environment.LOOPBACK_ONLY}


def test_a_mode_that_ray_would_take_for_disabled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "tokn")
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE='tokn'; allowed are token and disabled\."):
        environment.auth_mode()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE"):
        start_or_join()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gpu-01"])
def test_without_tokens_only_the_loopback_is_allowed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=f"RAY_AUTH_MODE=disabled with --host {host}: .*loopback alone"):
        environment.refuse_open_door(host, f"--host {host}")
    environment.refuse_open_door("127.0.0.1", "--host 127.0.0.1")
    for mode in ("token", ""):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        environment.refuse_open_door(host, f"--host {host}")


def test_a_token_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=f"no token can be read from {tmp_path}/none .*RAY_AUTH_TOKEN_PATH"):
        environment.token()
    (tmp_path / "none").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        environment.token()


@pytest.mark.parametrize("arguments", ["--help", "stats nowhere", "curate --help"])
@pytest.mark.slow
def test_a_command_that_starts_no_ray_writes_nothing(tmp_path: Path, arguments: str) -> None:
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    for name in NAMES:
        variables.pop(name, None)
    script = (
        "import os, tempfile\nfrom protclip.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print('WRITTEN', os.listdir(tempfile.gettempdir()))"
    )
    command = [sys.executable, "-c", script, *arguments.split()]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert "WRITTEN []" in done.stdout, done.stderr
