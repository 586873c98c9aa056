"""What a host without the token reaches of a cluster, and what it does not."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import stranger
from running import wait_until
from several_hosts import deploy, living_nodes, raylets, started
from strangers import ask_as_a_stranger, ask_everything, assert_nothing_told, open_ports
from tiny_model import random_sequences, tiny_model, write_protein_index

from serve.keys import new_key

NAME = f"s{os.getpid() % 10**7}"
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


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
        answered = ask_everything(cluster, ports)
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
        answered = ask_everything(cluster, ports)
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
