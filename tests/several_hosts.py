"""A cluster of several hosts on this machine whose hosts are lost and come back, for tests."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner
from kills import NUM_TRIES
from running import wait_until
from trained_runs import SETTINGS

from cluster import network
from cluster.hosts import LocalCluster, Settings
from protclip.__main__ import cli
from protclip.errors import ConfigError

PROTCLIP = ("python", "-m", "protclip")
TRAINING = (*SETTINGS, "epochs=3", "workers.num=3", "workers.resources={CPU: 0.7}", "max_failures=20")
"""A run of about 180 steps by 3 workers, of one host each where hosts have one CPU."""
ALIVE = """
import sys
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc
with init_grpc_channel(sys.argv[1], [("grpc.enable_http_proxy", 0)]) as channel:
    stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
    nodes = stub.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=20).node_info_list
print(*(node.node_manager_address for node in nodes if node.state == gcs_pb2.GcsNodeInfo.ALIVE))
"""
"""Prints the addresses of the living nodes; without a driver, which would need a node of its own."""


def skip_where_impossible() -> None:
    """Skip the test where no namespaces can be made."""
    try:
        network.check_possible()
    except ConfigError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def started(name: str, *, hosts: int) -> Iterator[LocalCluster]:
    """A cluster with one client, c1; its logs go into the report of a test that fails."""
    skip_where_impossible()
    with LocalCluster(Settings(name=name, hosts=hosts, clients=1)) as cluster:
        yield cluster


def make_pairs(folder: Path) -> str:
    """Pairs for a training, of synthetic entries."""
    data, pairs = str(folder / "proteome.dat.gz"), str(folder / "pairs")
    options = ("--dataset", "all", "--split-by", "sequence", "--valid-fraction", "0.05", "--row-group-rows", "32")
    for command in (
        ["synthesize", "--output", data, "--entries", "1600", "--families", "20"],
        ["curate", data, "--output", pairs, *options],
    ):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    return pairs


class Job:
    """A submitted job, whose output goes to a file."""

    def __init__(self, cluster: LocalCluster, name: str, *command: str, said: Path) -> None:
        """Submit it from c1."""
        self._said = said
        with said.open("w") as output:
            self.process = cluster.popen(
                "c1",
                ["ray", "job", "submit", "--submission-id", name, "--", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or whoever waits for it."""
        return self.process.poll() is not None

    def said(self) -> str:
        """Its output, without colours."""
        return re.sub(r"\x1b\[\d+m", "", self._said.read_text())

    def succeed(self, timeout_s: float) -> None:
        """Wait for its end, which is a good one."""
        assert self.process.wait(timeout_s) == 0, self.said()[-8000:]

    def wait_until(self, is_true: Callable[[], object], what: str, timeout_s: float = 900.0) -> None:
        """Look again and again until it is true; the job must not end before."""

        def is_time() -> object:
            found = is_true()
            assert found or not self.is_over, f"the job ended before: {what}\n{self.said()[-8000:]}"
            return found

        wait_until(is_time, f"{what}\n{self.said()[-8000:]}", timeout_s)


def hosts_with(cluster: LocalCluster, title: str) -> set[str]:
    """Hosts on which a process runs whose first argument begins so; Ray's workers call themselves by what they do."""
    found = set()
    for host in cluster.hosts:
        for pid in cluster.processes(host):
            with contextlib.suppress(psutil.Error):
                if "".join(psutil.Process(pid).cmdline()[:1]).startswith(title):
                    found.add(host)
    return found


def living_nodes(cluster: LocalCluster) -> set[str]:
    """Hosts whose nodes live, as the head sees it; asked at most once a second, since asking takes a processor."""
    time.sleep(1)
    done = cluster.run("h1", [sys.executable, "-c", ALIVE, cluster.address], capture_output=True, text=True)
    addresses = done.stdout.split()
    return {host.name for host in cluster.hosts.values() if host.address in addresses}


def lose(cluster: LocalCluster, host: str, how: str) -> None:
    """``cut`` a host from the network, or ``kill`` all that runs there."""
    {"cut": cluster.cut, "kill": cluster.kill}[how](host)


def bring_back(cluster: LocalCluster, host: str, how: str) -> float:
    """Restore a host's link, where it was cut, and start its node again.

    The head has declared the node dead: its raylet hears of it when the link is back, and ends.

    Returns:
        Seconds until the raylet had ended.
    """
    start = time.monotonic()
    if how == "cut":
        cluster.restore(host)
        wait_until(lambda: not raylets(cluster, host), f"the raylet of {host} does not end")
    seconds = time.monotonic() - start
    start_again(cluster, host)
    return seconds


def start_again(cluster: LocalCluster, host: str, **options: Any) -> None:
    """Start a node where none runs, after what an earlier one left is ended.

    ``ray start`` gives up after 30 s, which on a loaded machine is not enough.
    """
    for tries in range(1, NUM_TRIES + 1):
        cluster.kill(host)
        try:
            cluster.start(host, **options)
            return
        except ConfigError:
            if tries == NUM_TRIES:
                raise


def deploy(cluster: LocalCluster, folder: Path, index: str, *, keys: str = "none") -> None:
    """Serve an index on each of three hosts, and wait until all answer."""
    config = yaml.safe_load((Path(__file__).parents[1] / "serve/config.yaml").read_text())
    config["http_options"]["host"] = "0.0.0.0"
    (application,) = config["applications"]
    application["args"] = {"checkpoint": str(folder / "checkpoint"), "keys": keys, "num_replicas": 3, "threads": 1}
    (replica,) = application["deployments"]
    replica["user_config"] = {"indexes": {"default": index}}
    replica["max_replicas_per_node"] = 1
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    env = {"RAY_DASHBOARD_ADDRESS": cluster.dashboard_url}
    cluster.run("c1", ["serve", "deploy", str(path)], env=env, check=True, capture_output=True)
    ask = [sys.executable, "-c", "import sys, requests; assert requests.get(sys.argv[1], timeout=5).ok"]
    for host in ("h1", "h2", "h3"):
        url = f"http://{cluster.hosts[host].address}:8000/health/ready"
        wait_until(lambda url=url: cluster.run("c1", [*ask, url], capture_output=True).returncode == 0, url)  # type: ignore[misc]
    assert hosts_with(cluster, "ray::ServeReplica") == {"h1", "h2", "h3"}


def raylets(cluster: LocalCluster, host: str) -> list[int]:
    """The ids of a host's raylets."""
    found = []
    for pid in cluster.processes(host):
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).name() == "raylet":
                found.append(pid)
    return found
