"""A cluster of several hosts on this machine trains a model, is disturbed, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from running import wait_until
from strangers import ask_everything, assert_nothing_told, open_ports

from cluster import network
from cluster.hosts import LocalCluster, Settings, find
from cluster.processes import is_alive
from protclip import files
from protclip.__main__ import cli
from protclip.errors import ConfigError

pytestmark = pytest.mark.ray

COMMAND = (sys.executable, "-m", "cluster.local")
NAME = f"t{os.getpid() % 10**7}"
NODES = ("h1", "h2", "h3")
PRETRAIN = ("python", "-m", "protclip", "pretrain")
SETTINGS = (
    "epochs=1",
    "batch.global_batch_size=24",
    "data.lanes=24",
    "workers.num=3",
    "workers.resources={CPU: 0.7}",
    "trackers=[]",
    "model.projection_dim=16",
    "model.text.config.vocab_size=300",
)
SECOND_BYTES = 1_250_000
"""What a link of 10 Mbit/s carries in a second."""
SEND = f"""
import socket
with socket.create_connection(("10.77.0.3", 9000)) as to:
    to.sendall(bytes({SECOND_BYTES}))
    to.shutdown(socket.SHUT_WR)
    to.recv(1)
"""
RECEIVE = """
import socket
with socket.create_server(("10.77.0.3", 9000)) as server:
    for _ in range(2):
        sender, _ = server.accept()
        with sender:
            while sender.recv(65536):
                pass
"""


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        network.check_possible()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.fixture(scope="module")
def cluster(shared_memory: set[str]) -> Iterator[LocalCluster]:  # noqa: ARG001
    with LocalCluster(Settings(name=NAME, hosts=len(NODES), clients=1)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pairs")
    data, pairs = str(folder / "proteome.dat.gz"), str(folder / "pairs")
    options = ("--dataset", "all", "--split-by", "sequence", "--valid-fraction", "0.05", "--row-group-rows", "32")
    for command in (
        ["synthesize", "--output", data, "--entries", "120"],
        ["curate", data, "--output", pairs, *options],
    ):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    return pairs


def left(cluster: LocalCluster) -> list[str]:
    """What there is of a cluster: namespaces, links, its folder, and processes that have to do with it."""
    found = network.namespaces(f"pc-{cluster.settings.name}-")
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    names = {line.split(": ")[1].partition("@")[0] for line in links.splitlines()}
    found += sorted(names & {network.BRIDGE, *cluster.hosts})
    found += [str(cluster.folder)] if cluster.folder.exists() else []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            about = " ".join([*process.cmdline(), *process.environ().values()])
            if str(cluster.folder) in about and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
    return found


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def hosts_that_train(cluster: LocalCluster) -> set[str]:
    found = set()
    for host in cluster.hosts:
        for pid in cluster.processes(host):
            with contextlib.suppress(psutil.Error):
                if psutil.Process(pid).cmdline()[:1] and psutil.Process(pid).cmdline()[0].startswith("ray::RayTrain"):
                    found.add(host)
    return found


def test_what_a_killed_start_leaves_is_taken_down() -> None:
    cluster = LocalCluster(Settings(name=f"k{NAME[1:]}"[:8]))
    name = cluster.settings.name
    starter = subprocess.Popen([*COMMAND, "up", "--name", name], stdout=subprocess.DEVNULL)
    # `ray start` has begun, and will go on without the starter.
    wait_until(lambda: (cluster.folder / "h1" / "session_latest").exists() or starter.poll() is not None, "no start")
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    assert cluster.processes("h1")
    assert find(name).settings == cluster.settings
    again = call("up", "--name", name)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert f"is up already, or was left by a crash ({cluster.folder}); take it down with" in again.stderr
    assert len(left(cluster)) > 4
    assert call("down", "--name", name).stdout == f"{name}: down\n"
    assert left(cluster) == []
    assert call("down", "--name", name).stdout == f"{name}: was not up\n"


def test_a_client_without_ray_submits_a_training_on_three_hosts(
    cluster: LocalCluster, pairs: str, tmp_path: Path
) -> None:
    def submit(name: str, *command: str) -> subprocess.Popen[str]:
        with (tmp_path / name).open("w") as output:
            return cluster.popen(
                "c1",
                ["ray", "job", "submit", "--submission-id", name, "--", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(name: str) -> str:
        return re.sub(r"\x1b\[\d+m", "", (tmp_path / name).read_text())

    def job(*arguments: str) -> str:
        done = cluster.run("c1", ["ray", "job", *arguments], capture_output=True, text=True)
        return re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)

    run_dir = tmp_path / "run"
    training = submit("training", *PRETRAIN, "tiny_cpu", f"data.pairs={pairs}", f"run_dir={run_dir}", *SETTINGS)
    stopped = submit("stopped", "sleep", "1000")
    failing = submit("failing", *PRETRAIN, "tiny_cpu", f"data.pairs={tmp_path}/none", f"run_dir={tmp_path}/other")

    assert failing.wait(60) == 1
    assert "Job 'failing' failed" in said("failing")
    assert "DataError: " in said("failing").split("Job 'failing' failed")[1], said("failing")

    wait_until(lambda: "running" in job("status", "stopped"), "the job does not run")
    assert "Job 'stopped' was stopped" in job("stop", "stopped")
    stopped.wait(60)
    assert "Job 'stopped' was stopped" in job("status", "stopped")

    trained_on: set[str] = set()
    while training.poll() is None and trained_on != set(NODES):
        trained_on = hosts_that_train(cluster)
    assert trained_on == set(NODES), said("training")  # all at one moment
    assert training.wait(120) == 0, said("training")
    assert "epoch 1/1 done" in said("training")  # a worker's line, from wherever it ran
    assert "Warning" not in said("training"), said("training")
    assert "Job 'training' succeeded" in job("status", "training")
    assert files.read_json(str(run_dir / "metrics.json"))["best_epoch"] == 1
    assert cluster.processes("c1") == []


def test_who_has_no_token_is_told_nothing(cluster: LocalCluster) -> None:
    ports = open_ports(cluster)
    assert len(ports) > 15
    assert_nothing_told(ports, ask_everything(cluster, ports))


def test_links_are_limited_cut_and_restored(cluster: LocalCluster) -> None:
    receiver = cluster.popen("h3", [sys.executable, "-c", RECEIVE])

    def sends(timeout_s: float) -> bool:
        try:
            return (
                cluster.run("h2", [sys.executable, "-c", SEND], timeout=timeout_s, stderr=subprocess.DEVNULL).returncode
                == 0
            )
        except subprocess.TimeoutExpired:
            return False

    wait_until(lambda: "9000" in cluster.run("h3", ["ss", "-ltn"], capture_output=True, text=True).stdout, "no server")
    assert call("limit", "h2", "1mbit", "--name", NAME).returncode == 0
    assert "tbf 1Mbit" in call("list").stdout
    assert not sends(1.0)  # takes ten seconds
    assert call("limit", "h2", "none", "--name", NAME).returncode == 0
    assert call("cut", "h3", "--name", NAME).returncode == 0
    assert "link cut" in call("list").stdout
    assert not sends(1.0)
    assert call("restore", "h3", "--name", NAME).returncode == 0
    assert sends(20.0)
    receiver.kill()
    receiver.wait()


def test_a_kernel_without_netem_refuses_a_delay_and_leaves_the_link_as_it_was(cluster: LocalCluster) -> None:
    done = call("limit", "h2", "10mbit", "--delay", "20ms", "--name", NAME)
    if done.returncode == 0:
        assert "netem" in call("list").stdout
        cluster.limit("h2", None)
        return
    assert "this kernel delays no links, it has no netem" in done.stderr
    assert "tbf" not in call("list").stdout


def test_a_killed_node_is_started_again(cluster: LocalCluster) -> None:
    assert call("kill", "h3", "--name", NAME).returncode == 0
    assert cluster.processes("h3") == []
    assert call("start", "h3", "--name", NAME).returncode == 0
    raylets = [pid for pid in cluster.processes("h3") if psutil.Process(pid).name() == "raylet"]
    assert len(raylets) == 1
    refused = call("start", "c1", "--name", NAME)
    assert refused.stderr == "ConfigError: host 'c1' is a client, which has no Ray node; nodes are h1 to h3.\n"
    assert call("run", "--name", NAME, "c1", "--", "sh", "-c", "exit 7").returncode == 7


def test_nothing_is_left(cluster: LocalCluster, shared_memory: set[str]) -> None:
    processes = [psutil.Process(pid) for host in cluster.hosts for pid in cluster.processes(host)]
    assert len(processes) > 10
    assert call("down", "--name", NAME).stdout == f"{NAME}: down\n"
    assert left(cluster) == []
    assert not any(map(is_alive, processes))
    # Other tests may run beside this one, with memory of theirs.
    held = "".join(text_of(maps) for maps in Path("/proc").glob("[0-9]*/maps"))
    new = set(os.listdir("/dev/shm")) - shared_memory
    assert [name for name in new if f"/dev/shm/{name}" not in held] == []


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
