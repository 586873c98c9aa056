"""What a host without the token reaches of a cluster, and what it does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import psutil
import pytest
import stranger
from running import wait_until
from several_hosts import deploy, living_nodes, raylets, started
from tiny_model import random_sequences, tiny_model, write_protein_index

from cluster.hosts import LocalCluster
from serve.keys import new_key

NAME = f"s{os.getpid() % 10**7}"
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
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


def ask_as_a_stranger(cluster: LocalCluster, *arguments: str) -> str:
    command = [sys.executable, str(Path(stranger.__file__)), *arguments]
    return cluster.run("c1", command, env=WITHOUT_TOKEN, capture_output=True, text=True, check=True).stdout


@pytest.mark.prove
def test_without_the_token_nothing_is_read_run_or_ended(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "checkpoint"))
    index = write_protein_index(tmp_path, model, random_sequences(60))
    keys = tmp_path / "keys.txt"
    keys.write_text(f"{new_key('somebody')[1]}\n")
    with started(NAME, hosts=3) as cluster:
        deploy(cluster, tmp_path, index, keys=str(keys))
        ports = open_ports(cluster)
        answered = json.loads(ask_as_a_stranger(cluster, *ports))
        for one, (calls, num_refused) in answered.items():
            print(f"{one} {ports[one].split()[0][-40:]}: {num_refused} refused, {calls}")
        assert_nothing_told(ports, answered)
        assert living_nodes(cluster) == {"h1", "h2", "h3"}


@pytest.mark.prove
def test_the_firewall_of_the_docs_keeps_strangers_away_and_nodes_together(tmp_path: Path) -> None:
    if shutil.which("nft") is None:
        pytest.skip("no nft; install nftables")
    (rules,) = re.findall(r"```\n(table inet ray \{.*?)```", OPERATIONS.read_text(), re.DOTALL)
    with started(NAME, hosts=3) as cluster:
        nodes = [host.address for host in cluster.hosts.values() if not host.is_client]
        path = tmp_path / "ray.nft"
        path.write_text(re.sub(r"elements = \{.*?\}", f"elements = {{ {', '.join(nodes)} }}", rules))
        for host in ("h1", "h2", "h3"):
            cluster.run(host, ["nft", "-f", str(path)], check=True)
        ports = open_ports(cluster)
        answered = json.loads(ask_as_a_stranger(cluster, *ports))
        assert all(calls == [stranger.NO_CONNECTION] for calls, _ in answered.values()), answered
        targets = [one for one, command in ports.items() if "raylet/raylet" in command or "gcs_server" in command]
        for target in targets:
            ask_as_a_stranger(cluster, "start-sync", target)
        submit = ["ray", "job", "submit", "--", "python", "-m", "protclip", "--version"]
        cluster.run("h1", submit, check=True, capture_output=True)
        assert living_nodes(cluster) == {"h1", "h2", "h3"}
        # Without the rules that call ends a raylet: the reason why tokens are not enough.
        cluster.run("h3", ["nft", "flush", "ruleset"], check=True)
        for target in targets:
            if target.startswith(f"{cluster.hosts['h3'].address}:"):
                ask_as_a_stranger(cluster, "start-sync", target)
        wait_until(
            lambda: not raylets(cluster, "h3"), "StartSync does no harm any more: docs/operations.md says it does"
        )
        assert raylets(cluster, "h1") and raylets(cluster, "h2")
