"""What a host without the token reaches of a cluster, and what it does not."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import psutil
import pytest
import stranger
from several_hosts import deploy, living_nodes, started
from tiny_model import random_sequences, tiny_model, write_protein_index

from cluster.hosts import LocalCluster
from serve.keys import new_key

NAME = f"s{os.getpid() % 10**7}"
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
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
        for one, calls in answered.items():
            print(one, ports[one][:160], *calls, sep="\n    ")
        assert living_nodes(cluster) == {"h1", "h2", "h3"}
