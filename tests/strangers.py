"""What a host of a cluster that has no token is told; ``stranger.py`` runs there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import psutil
import stranger

from cluster.hosts import LocalCluster

OPEN = {
    stranger.METRICS,
    "GET /: 200",  # the dashboard's empty page; Serve's search page
    "GET /-/routes: 200",
    "GET /api/gcs_healthz: 200",
    "GET /api/local_raylet_healthz: 200",
}
WITHOUT_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/nowhere"}


def open_ports(cluster: LocalCluster) -> dict[str, str]:
    """Which process listens on each address:port that other hosts may reach."""
    found = {}
    for host in cluster.hosts.values():
        said = cluster.run(host.name, ["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        for line in said.splitlines():
            address, _, port = line.split()[3].rpartition(":")
            if not address.startswith("127."):
                pid = re.search(r"pid=(\d+)", line)
                assert pid is not None
                found[f"{host.address}:{port}"] = " ".join(psutil.Process(int(pid[1])).cmdline()) + f" on {address}"
    return found


def assert_nothing_told(ports: dict[str, str], answered: dict[str, tuple[list[str], int]]) -> None:
    """What asks for no token: counters, signs of life, and pages without anything of the cluster in them."""
    for one, (calls, num_refused) in answered.items():
        assert set(calls) <= OPEN, f"{one} {ports[one]}: {calls}"
        if any(name in ports[one] for name in ("gcs_server", "raylet/raylet", "client.server", "RuntimeEnvAgent")):
            assert num_refused > 0 and not calls, ports[one]


def ask_everything(cluster: LocalCluster, ports: dict[str, str]) -> dict[str, tuple[list[str], int]]:
    """What each of the ports answered, and how many calls it refused for want of a token."""
    found: dict[str, tuple[list[str], int]] = json.loads(ask_as_a_stranger(cluster, *ports))
    return found


def ask_as_a_stranger(cluster: LocalCluster, *arguments: str) -> str:
    """What the script prints on the client."""
    command = [sys.executable, str(Path(stranger.__file__)), *arguments]
    said: str = cluster.run("c1", command, env=WITHOUT_TOKEN, capture_output=True, text=True, check=True).stdout
    return said
