"""A Ray head of our own on this machine: its own token, ports and folder, and an end that touches nothing else.

For the quickstart and the tests. A cluster is started by other means: see cluster/README.md.

Several Rays share a machine without noticing each other as long as ports, temporary folder and token differ, and as
long as nobody calls ``ray stop``, which ends them all. So every process that comes from our ``ray start`` is found
again by two marks: a variable in its environment, and the session (in the sense of setsid) that ``ray start`` was
given. Ray rewrites the title of its Python workers, and with it what the kernel shows of their environment, hence the
second mark; a submitted job opens a session of its own, hence the first.

What is known of a head lies in its folder below our private root. The folder that the caller named holds only the
head's name, so that nothing that was put there by others says what is ended or removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import requests

from cluster.environment import LOOPBACK, LOOPBACK_ONLY, MARK_VARIABLE, with_token, without_ray
from cluster.folders import RayFolder, find_folder, is_private, make_folder
from cluster.ports import free_ports
from cluster.processes import is_alive, marked
from protclip import files
from protclip.errors import ConfigError

STATE_FILE = "head.json"
LOG_FILE = "ray_start.log"

_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "ray-client-server-port",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A running head, as ``head.json`` in its private folder records it."""

    mark: str
    """The name of its private folder, and the value of PROTCLIP_RAY in its processes."""

    session: int
    """The process session that ``ray start`` ran in."""

    address: str
    """host:port of the GCS, for RAY_ADDRESS."""

    dashboard_url: str
    """Where jobs are submitted."""

    token_path: str
    """The file that holds the token, readable for the owner alone."""

    def environment(self) -> dict[str, str]:
        """The environment in which a command, ``ray job submit`` or ``ray.init()`` meets this head and no other."""
        return {
            **_outer_environment(),
            **with_token(self.token_path),
            "RAY_ADDRESS": self.address,
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,
        }

    def processes(self) -> list[psutil.Process]:
        """What is running of this head now: its own processes and all that they started."""
        ours = marked(self.mark)
        if any(_session_of(process) == self.session for process in ours):
            # Without a marked member the number may long belong to a session of somebody else.
            everything = (process for process in psutil.process_iter() if process.pid != os.getpid())
            ours += [process for process in everything if _session_of(process) == self.session]
        found = {process.pid: process for process in ours}
        for process in ours:
            found.update({child.pid: child for child in _children_of(process)})
        return [process for process in found.values() if is_alive(process)]

    def stop(self, *, timeout_s: float = 3.0) -> None:
        """End the head's processes, and no others, and remove its private folder.

        Args:
            timeout_s: how long processes may take to end on SIGTERM before they get SIGKILL. Some of Ray's take more
                than ten seconds when all get it at once; nothing of theirs outlives the head, so why wait.

        Raises:
            ConfigError: if a process is left that does not end on SIGKILL either.
        """
        _end(self.processes(), signal.SIGTERM, timeout_s)
        for _ in range(5):  # A process that was just being started shows on a later look.
            left = self.processes()
            if not left:
                break
            _end(left, signal.SIGKILL, timeout_s)
        else:
            raise ConfigError(f"processes {[process.pid for process in self.processes()]} of the local Ray do not end.")
        folder = find_folder(self.mark)
        if folder is not None:
            folder.remove()


def start_head(
    folder: str, *, num_cpus: int, environment: Mapping[str, str] | None = None, object_store_mb: int = 300
) -> Head:
    """Start a head and wait until it takes jobs.

    Args:
        folder: for the log and ``head.json``, which names the head; made where it is missing. A head that an earlier
            call left running in the same folder is stopped first.
        num_cpus: logical CPUs; may be more than the machine has cores.
        environment: variables for the head and for whatever runs on it, over those of this process. RAY_* variables
            of this process are not passed on: they speak of another Ray.
        object_store_mb: size of the shared-memory store.

    Raises:
        ConfigError: if it does not start; with the end of its log.
    """
    stop_head(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    private = make_folder()
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        f"--node-ip-address={LOOPBACK}",
        f"--dashboard-host={LOOPBACK}",
        *(f"--{name}={port}" for name, port in ports.items()),
        # Any free port: the default range is the same for every Ray on the machine.
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--num-cpus={num_cpus}",
        f"--object-store-memory={object_store_mb * 1024 * 1024}",
        f"--temp-dir={private.temp_dir}",
        "--disable-usage-stats",
        "--log-color=false",
    ]
    log_path = Path(folder) / LOG_FILE
    with log_path.open("w") as log:
        starting = subprocess.Popen(
            command,
            env={
                **_outer_environment(),
                **(environment or {}),
                **with_token(private.token_path),
                MARK_VARIABLE: private.name,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    head = Head(
        mark=private.name,
        session=starting.pid,
        address=f"{LOOPBACK}:{ports['port']}",
        dashboard_url=f"http://{LOOPBACK}:{ports['dashboard-port']}",
        token_path=private.token_path,
    )
    files.write_json(_state_path(private), asdict(head))
    files.write_json(files.join(folder, STATE_FILE), {"mark": head.mark, "root": str(private.path.parent)})
    try:
        _wait_until_ready(head, starting, log_path, timeout_s=120)
    except BaseException:
        stop_head(folder)
        raise
    return head


def stop_head(folder: str) -> bool:
    """Stop the head that ``start_head`` left running in a folder; False where there is none.

    Raises:
        ConfigError: if it was started with another TMPDIR: what is ended and removed is looked for below our own root.
    """
    path = files.join(folder, STATE_FILE)
    head = _find_head(path)
    if head is None:
        return False
    was_running = bool(head.processes())
    head.stop()
    files.remove(path)
    return was_running


def _find_head(path: str) -> Head | None:
    """The head that a file names; None where it names none of ours."""
    if not files.exists(path):
        return None
    named = files.read_json(path)
    mark, root = (named.get("mark"), named.get("root")) if isinstance(named, dict) else (None, None)
    if not isinstance(mark, str) or not isinstance(root, str):
        return None
    private = find_folder(mark)
    if private is None and is_private(Path(root, mark)):
        raise ConfigError(f"{path} names a head in {root!r}: set TMPDIR={str(Path(root).parent)!r} to stop that one.")
    if private is None or not files.exists(_state_path(private)):
        return None
    return Head(**files.read_json(_state_path(private)))


def _state_path(private: RayFolder) -> str:
    return str(private.path / STATE_FILE)


def _outer_environment() -> dict[str, str]:
    """This process's environment without any other Ray's, for one on the loopback."""
    # A proxy is no way to this machine.
    return {**without_ray([LOOPBACK, "localhost"]), **LOOPBACK_ONLY}


def _wait_until_ready(head: Head, starting: subprocess.Popen[bytes], log_path: Path, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    try:
        status = starting.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise ConfigError(_failure(f"`ray start` did not return in {timeout_s:.0f} s", log_path)) from None
    if status != 0:
        raise ConfigError(_failure(f"`ray start` ended with status {status}", log_path))
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {Path(head.token_path).read_text()}"
        while time.monotonic() < deadline:
            try:
                if session.get(f"{head.dashboard_url}/api/jobs/", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.2)
    raise ConfigError(
        _failure(f"the local Ray took no jobs at {head.dashboard_url} within {timeout_s:.0f} s", log_path)
    )


def _failure(what: str, log_path: Path) -> str:
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-20:])
    return f"{what}; its log {log_path} ends:\n{tail}"


def _end(processes: list[psutil.Process], number: signal.Signals, timeout_s: float) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # psutil compares creation times: never a process that took over the number
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + timeout_s
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
