"""What the environment says about Ray, read in one place: an empty variable is an unset one."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from protclip.errors import ConfigError

ADDRESS = "RAY_ADDRESS"
AUTH_MODE = "RAY_AUTH_MODE"
AUTH_TOKEN = "RAY_AUTH_TOKEN"
AUTH_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"

MARK_VARIABLE = "PROTCLIP_RAY"
"""In the environment of every process that a Ray of our own starts; the value is the name of its folder."""

TOKEN, DISABLED = "token", "disabled"

LOOPBACK = "127.0.0.1"
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes 127.0.0.1 a node's address, so that Ray listens there and nowhere else; read when Ray is imported."""

FAIL_ALOUD = {"RAY_prestart_worker_first_driver": "0"}
"""Otherwise ``ray.init`` waits for a worker, without end where none can start; read when Ray is started."""


def setting(name: str) -> str | None:
    """The value of a variable; None where it is unset or empty."""
    return os.environ.get(name, "").strip() or None


def address() -> str | None:
    """What RAY_ADDRESS names; None where a Ray of our own is wanted."""
    named = setting(ADDRESS)
    return None if named == "local" else named


def auth_mode() -> str | None:
    """RAY_AUTH_MODE: token, disabled or None.

    Raises:
        ConfigError: for another value, which Ray takes for disabled.
    """
    mode = setting(AUTH_MODE)
    if mode is None or mode.lower() in (TOKEN, DISABLED):
        return mode and mode.lower()
    raise ConfigError(f"{AUTH_MODE}={mode!r}; allowed are {TOKEN} and {DISABLED}.")


def token() -> str | None:
    """The token with which a cluster is joined, found where Ray looks; None where the mode does not ask for one.

    Raises:
        ConfigError: if there is none and the mode asks for one, or its file cannot be read.
    """
    if auth_mode() != TOKEN:
        return None
    if given := setting(AUTH_TOKEN):
        return given
    path = Path(setting(AUTH_TOKEN_PATH) or Path.home() / ".ray" / "auth_token")
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{AUTH_MODE}=token, and no token can be read from {path} ({error}); name the cluster's with "
            f"{AUTH_TOKEN_PATH}."
        ) from error
    if not found:
        raise ConfigError(f"{AUTH_MODE}=token, and the token file {path} is empty.")
    return found


def prepare_environment() -> None:
    """Set the environment of this process and its children; call it before Ray is imported.

    Nothing is written here. What is already set stays, but for what would open a door: an empty variable, which Ray
    takes for a value, and ``local``, for which Ray writes a token into the home folder.
    """
    for name, value in list(os.environ.items()):
        if name.startswith("RAY_") and not value.strip():
            del os.environ[name]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns of find_unused_parameters, which we mean
    os.environ.update(FAIL_ALOUD)
    if path := setting(AUTH_TOKEN_PATH):
        os.environ[AUTH_TOKEN_PATH] = str(Path(path).absolute())  # Ray is started in another folder
    named = address()
    if named is None:
        os.environ.pop(ADDRESS, None)
        os.environ.setdefault(AUTH_MODE, TOKEN)
    if named is None or is_loopback(named.rpartition(":")[0]):
        os.environ.update(LOOPBACK_ONLY)


def without_ray(direct: Iterable[str]) -> dict[str, str]:
    """This process's environment without any Ray's, for a Ray that is started beside it or one that it asks.

    Args:
        direct: hosts that are reached without a proxy.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != MARK_VARIABLE}
    # A submitted job finds `python` and `protclip` by the head's PATH. The venv's python is a link: do not resolve it.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH') or os.defpath}"
    without_proxy = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), *direct]))
    return {
        **kept,
        "PATH": path,
        "NO_PROXY": without_proxy,
        "no_proxy": without_proxy,
        "RAY_USAGE_STATS_ENABLED": "0",
        **FAIL_ALOUD,
    }


def with_token(path: str) -> dict[str, str]:
    """Variables that say where the token is."""
    return {AUTH_MODE: TOKEN, AUTH_TOKEN_PATH: path}


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's loopback."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_open_door(host: str, what: str) -> None:
    """Refuse to go without tokens where other machines may reach.

    Args:
        host: the address or name that is listened on, or joined.
        what: where it was given, for the message.

    Raises:
        ConfigError: if RAY_AUTH_MODE is disabled and the host is not the loopback.
    """
    if auth_mode() == DISABLED and not is_loopback(host):
        raise ConfigError(
            f"{AUTH_MODE}={DISABLED} with {what}: whoever reaches such a Ray runs code as its user; allowed on the "
            f"loopback alone. Set {AUTH_MODE}={TOKEN} (docs/operations.md says how a cluster gets its token)."
        )
