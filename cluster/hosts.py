"""A Ray cluster of several hosts on one machine, for tests and for trying things out.

A host is a network namespace with an address of its own (``cluster/network.py``), in which a Ray node runs, or only a
client that submits jobs. The hosts share the machine's files, processors and memory. A cluster is taken down from any
process, also after its starter was killed: its namespaces begin with its name, and processes are found by them.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster import network
from cluster.environment import ADDRESS, with_token, without_ray
from cluster.folders import is_private
from protclip import files
from protclip.errors import ConfigError, NotFoundError, ProtclipError

DEFAULT_NAME = "local"
HEAD = "h1"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
NETWORK = "10.77.0.{}"
PREFIX_BITS = 24
MAX_HOSTS = 99
"""Of a kind: nodes have the addresses from 1 on, clients those from 101 on."""
START_S = 120.0
"""For Ray to start in a host, and for the head to take jobs."""

_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
_FOLDERS = "/tmp/protclip-hosts-{}"
"""Not below TMPDIR: from wherever it is looked for it is the same, and short enough for Ray's sockets."""
_RECORD_FILE = "cluster.json"
_PROBE = """
import pathlib, sys, urllib.request
headers = {"Authorization": "Bearer " + pathlib.Path(sys.argv[2]).read_text()}
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(urllib.request.Request(sys.argv[1], headers=headers), timeout=5).read()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host, whose name is h1, h2 and so on, or c1 and so on for a client."""

    name: str
    address: str
    is_client: bool
    """Whether it is without a Ray node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a cluster is made of; its record."""

    name: str = DEFAULT_NAME
    """At most 8 letters and digits."""
    hosts: int = 3
    """With a Ray node each; the first has the head."""
    clients: int = 0
    """Hosts without one, from which jobs are submitted."""
    cpus: int = 1
    """Logical CPUs of each node; ``ray start`` takes whole ones."""
    object_store_mb: int = 200
    """Shared memory of each node."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name {self.name!r}; allowed are up to 8 of a to z and 0 to 9, a letter first.")
        if not 1 <= self.hosts <= MAX_HOSTS or not 0 <= self.clients <= MAX_HOSTS:
            raise ConfigError(f"{self.hosts} hosts and {self.clients} clients; allowed are up to {MAX_HOSTS} of each.")
        if self.cpus < 0 or self.object_store_mb < 80:
            raise ConfigError(f"cpus {self.cpus}, object store {self.object_store_mb} MB; Ray needs 80 MB.")


class LocalCluster:
    """A cluster of hosts on this machine; as a context manager it is up within, and nothing of it is left after.

    Args:
        settings: of the cluster.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(_FOLDERS.format(settings.name))
        nodes = [_host("h", number, 0) for number in range(1, settings.hosts + 1)]
        clients = [_host("c", number, 100) for number in range(1, settings.clients + 1)]
        self.hosts = {host.name: host for host in [*nodes, *clients]}

    def __enter__(self) -> LocalCluster:
        self.up()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.down()

    @property
    def token_path(self) -> Path:
        """The file that holds the token, readable for root alone."""
        return self.folder / "token"

    @property
    def address(self) -> str:
        """Of the GCS, as RAY_ADDRESS has it."""
        return f"{self.hosts[HEAD].address}:{GCS_PORT}"

    @property
    def dashboard_url(self) -> str:
        """Where jobs are submitted, from a host of the cluster."""
        return f"http://{self.hosts[HEAD].address}:{DASHBOARD_PORT}"

    def up(self) -> None:
        """Make the hosts and start Ray in them; when it returns, all nodes have joined and jobs are taken.

        Raises:
            ConfigError: if a cluster of that name is there already, or it cannot be made; nothing is left then.
        """
        network.check_possible()
        name = self.settings.name
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            raise ConfigError(
                f"a cluster {name!r} is up already, or was left by a crash ({self.folder}); take it down with `python "
                f"-m cluster.local down --name {name}`, or choose another --name."
            ) from None
        try:
            files.write_json(str(self.folder / _RECORD_FILE), asdict(self.settings))
            with os.fdopen(os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32))
            (self.folder / "tmp").mkdir()
            network.add_switch(self._switch)
            for host in self.hosts.values():
                network.add_host(
                    self._namespace(host.name),
                    switch=self._switch,
                    name=host.name,
                    address=f"{host.address}/{PREFIX_BITS}",
                )
            nodes = [host.name for host in self.hosts.values() if not host.is_client]
            self.start(HEAD)
            others = {node: self._begin_start(node) for node in nodes if node != HEAD}
            self._wait_for_jobs()
            for node, starting in others.items():
                self._end_start(node, starting)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End all processes of the hosts, and remove the hosts and the cluster's folder, as far as they are there."""
        for namespace in network.namespaces(f"{self._prefix}-"):
            network.remove(namespace)
        if is_private(self.folder):
            shutil.rmtree(self.folder)

    def environment(self, host: str) -> dict[str, str]:
        """The environment in which a command on a host meets this cluster and no other Ray."""
        known = {"RAY_API_SERVER_ADDRESS": self.dashboard_url}
        if not self._known(host).is_client:
            known[ADDRESS] = self.address
        return {**self._outer_environment(), **known}

    def run(self, host: str, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command on a host until it ends; options are those of ``subprocess.run``."""
        env = {**self.environment(host), **options.pop("env", {})}
        check = options.pop("check", False)
        return subprocess.run(network.inside(self._namespace(host), command), check=check, env=env, **options)

    def popen(self, host: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on a host; options are those of ``subprocess.Popen``. ``down`` and ``kill`` end it too."""
        env = {**self.environment(host), **options.pop("env", {})}
        return subprocess.Popen(network.inside(self._namespace(host), command), env=env, **options)

    def processes(self, host: str) -> list[int]:
        """The ids of a host's processes."""
        return network.processes(self._namespace(host))

    def kill(self, host: str) -> None:
        """SIGKILL to all processes of a host, as when it loses its power."""
        network.end_processes(self._namespace(host))

    def start(self, host: str, *, env: Mapping[str, str] | None = None) -> None:
        """Start a Ray node on a host that has none running. A head begins a new cluster, which others do not know.

        Args:
            host: of a node.
            env: more variables for the node, and so for what it runs.

        Raises:
            ConfigError: if the host is a client, or Ray does not start; with the end of its log.
        """
        self._end_start(host, self._begin_start(host, env))

    def cut(self, host: str) -> None:
        """Take a host from the network; its processes go on."""
        network.set_link(self._switch, self._known(host).name, "down")

    def restore(self, host: str) -> None:
        """Bring a host back to the network."""
        network.set_link(self._switch, self._known(host).name, "up")

    def limit(self, host: str, rate: str | None, *, delay: str | None = None) -> None:
        """Limit a host's link, the same in both directions; see ``cluster.network.limit_link``."""
        network.limit_link(self._namespace(host), switch=self._switch, name=host, rate=rate, delay=delay)

    def describe(self) -> list[str]:
        """A line for each host: name, address, what it is, its link and its processes."""
        lines = []
        for host in self.hosts.values():
            if self._namespace(host.name) not in network.namespaces(self._prefix):
                lines.append(f"{host.name:4} {host.address:12} gone")
                continue
            kind = "client" if host.is_client else "head" if host.name == HEAD else "node"
            link = network.link_state(self._switch, host.name)
            limit = network.link_limit(self._switch, host.name) or "no limit"
            count = len(self.processes(host.name))
            lines.append(f"{host.name:4} {host.address:12} {kind:7} link {link}, {limit}; {count} processes")
        return lines

    @property
    def _prefix(self) -> str:
        return f"pc-{self.settings.name}"

    @property
    def _switch(self) -> str:
        return f"{self._prefix}-switch"

    def _known(self, host: str) -> Host:
        if host not in self.hosts:
            raise NotFoundError(f"no host {host!r} in cluster {self.settings.name!r}; it has {', '.join(self.hosts)}.")
        return self.hosts[host]

    def _namespace(self, host: str) -> str:
        return f"{self._prefix}-{self._known(host).name}"

    def _outer_environment(self) -> dict[str, str]:
        direct = [host.address for host in self.hosts.values()]
        # What killed processes leave there goes with the cluster.
        temporary = {"TMPDIR": str(self.folder / "tmp")}
        return {**without_ray(direct), **with_token(str(self.token_path)), **temporary}

    def _log_path(self, host: str) -> Path:
        return self.folder / f"{host}.log"

    def _begin_start(self, host: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        here = self._known(host)
        if here.is_client:
            raise ConfigError(
                f"host {host!r} is a client, which has no Ray node; nodes are h1 to h{self.settings.hosts}."
            )
        # Ray takes the raylets of other hosts for its own, and would refuse a head at the address that they wait for.
        (self.folder / host / "ray_current_cluster").unlink(missing_ok=True)
        role = (
            ["--head", f"--port={GCS_PORT}", f"--dashboard-host={here.address}", f"--dashboard-port={DASHBOARD_PORT}"]
            if host == HEAD
            else [f"--address={self.address}"]
        )
        command = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            *role,
            f"--node-ip-address={here.address}",
            f"--num-cpus={self.settings.cpus}",
            f"--object-store-memory={self.settings.object_store_mb * 1024 * 1024}",
            f"--temp-dir={self.folder / host}",
            "--disable-usage-stats",
            "--log-color=false",
        ]
        with self._log_path(host).open("w") as log:
            return subprocess.Popen(
                network.inside(self._namespace(host), command),
                env={**self._outer_environment(), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_start(self, host: str, starting: subprocess.Popen[bytes]) -> None:
        try:
            status: int | None = starting.wait(START_S)
        except subprocess.TimeoutExpired:
            status = None
        if status != 0:
            ended = f"did not return within {START_S:.0f} s" if status is None else f"ended with status {status}"
            tail = "\n".join(self._log_path(host).read_text(errors="replace").splitlines()[-20:])
            raise ConfigError(f"`ray start` on host {host} {ended}; it said:\n{tail}")

    def _wait_for_jobs(self) -> None:
        deadline = time.monotonic() + START_S
        probe = [sys.executable, "-I", "-c", _PROBE, f"{self.dashboard_url}/api/jobs/", str(self.token_path)]
        while self.run(HEAD, probe, capture_output=True).returncode != 0:
            if time.monotonic() > deadline:
                raise ConfigError(f"the head took no jobs at {self.dashboard_url} within {START_S:.0f} s.")
            time.sleep(0.2)


def find(name: str) -> LocalCluster:
    """The cluster of that name, as its record describes it.

    Raises:
        ConfigError: if there is none, or its record is damaged.
    """
    folder = Path(_FOLDERS.format(name))
    up = ", ".join(names()) or "none"
    if not is_private(folder):
        raise ConfigError(f"no cluster {name!r} is up; there are: {up}. `python -m cluster.local up` starts one.")
    try:
        return LocalCluster(Settings(**files.read_json(str(folder / _RECORD_FILE))))
    except (OSError, TypeError, ProtclipError) as error:
        raise ConfigError(
            f"the record of cluster {name!r} cannot be read ({error}); remove what is left with `python -m "
            f"cluster.local down --name {name}`."
        ) from error


def names() -> list[str]:
    """Names of the clusters on this machine that are up, or were left by a crash."""
    pattern = Path(_FOLDERS.format("*"))
    found = [path for path in pattern.parent.glob(pattern.name) if is_private(path)]
    return sorted(path.name.removeprefix(pattern.name.rstrip("*")) for path in found)


def _host(kind: str, number: int, before: int) -> Host:
    return Host(name=f"{kind}{number}", address=NETWORK.format(before + number), is_client=kind == "c")
