"""What a cluster of hosts is called, where its record lies, and what is refused before anything is made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster import hosts, local, network
from cluster.hosts import LocalCluster, Settings, find
from cluster.network import queue_discipline
from protclip.errors import ConfigError, NotFoundError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_FOLDERS", str(tmp_path / "hosts-{}"))


def write_record(text: str, *, name: str = "a") -> Path:
    folder = Path(hosts._FOLDERS.format(name))
    folder.mkdir(mode=0o700)
    (folder / "cluster.json").write_text(text)
    return folder


def test_a_cluster_is_found_by_its_record() -> None:
    record = {"name": "a", "hosts": 2, "clients": 1, "cpus": 2, "object_store_mb": 100}
    write_record(json.dumps(record))
    found = find("a")
    assert found.settings == Settings(name="a", hosts=2, clients=1, cpus=2, object_store_mb=100)
    assert [host.address for host in found.hosts.values()] == ["10.77.0.1", "10.77.0.2", "10.77.0.101"]
    assert hosts.names() == ["a"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "a", "color": "red"}', '{"name": "a", "hosts": 0}'])
def test_a_damaged_record_says_how_to_take_the_cluster_down(text: str) -> None:
    write_record(text)
    with pytest.raises(ConfigError, match=r"cluster\.local down --name a"):
        find("a")


def test_a_record_that_others_can_write_to_is_none() -> None:
    write_record(json.dumps({"name": "a"})).chmod(0o755)
    with pytest.raises(ConfigError, match="no cluster 'a' is up; there are: none"):
        find("a")
    assert hosts.names() == []


@pytest.mark.parametrize(
    "settings",
    [{"name": "Local"}, {"name": "../x"}, {"name": "ninechars"}, {"hosts": 0}, {"clients": 100}, {"cpus": -1}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Settings(**settings)  # type: ignore[arg-type]


def test_sockets_of_the_longest_names_are_short_enough() -> None:
    folder = "/tmp/protclip-hosts-{}".format("x" * 8)
    session = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    assert len(f"{folder}/h99/{session}") <= 107


def test_only_nodes_have_the_address_by_which_drivers_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    cluster = LocalCluster(Settings(name="a", clients=1))
    node, client = cluster.environment("h2"), cluster.environment("c1")
    assert node["RAY_ADDRESS"] == "10.77.0.1:6379"
    assert "RAY_ADDRESS" not in client
    for env in (node, client):
        assert env["RAY_API_SERVER_ADDRESS"] == "http://10.77.0.1:8265"
        assert (env["RAY_AUTH_MODE"], env["RAY_AUTH_TOKEN_PATH"]) == ("token", str(cluster.folder / "token"))
        assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in env  # nodes would not meet


def test_an_unknown_host_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(NotFoundError, match=r"no host 'h9' in cluster 'a'; it has h1, c1\."):
        LocalCluster(Settings(name="a", hosts=1, clients=1)).environment("h9")


@pytest.mark.parametrize(
    ("rate", "delay", "words"),
    [
        (None, None, ""),
        ("10mbit", None, "tbf rate 10mbit burst 32768 latency 400ms"),
        ("1gbit", None, "tbf rate 1gbit burst 1250000 latency 400ms"),
        (None, "20ms", "netem delay 20ms"),
        ("500kbit", "20ms", "netem delay 20ms rate 500kbit"),
    ],
)
def test_limits_in_the_words_of_tc(rate: str | None, delay: str | None, words: str) -> None:
    assert " ".join(queue_discipline(rate, delay)) == words


@pytest.mark.parametrize(("rate", "delay"), [("10", None), ("0mbit", None), ("-1mbit", None), ("1mbit", "20")])
def test_limits_of_another_form_are_refused(rate: str, delay: str | None) -> None:
    with pytest.raises(ConfigError, match="allowed are such as"):
        queue_discipline(rate, delay)


def test_without_root_or_iproute2_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="need root"):
        network.check_possible()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError, match="install iproute2"):
        network.check_possible()
    assert hosts.names() == []


def test_the_command_line_names_its_commands() -> None:
    said = CliRunner().invoke(local.cli, ["--help"]).output
    for verb in ("up", "list", "down", "run", "limit", "cut", "restore", "kill", "start"):
        assert f"\n  {verb} " in said


def test_ray_start_takes_whole_cpus_alone() -> None:
    refused = CliRunner().invoke(local.cli, ["up", "--cpus", "1.5"])
    assert refused.exit_code == 2 and "'1.5' is not a valid integer" in refused.output
