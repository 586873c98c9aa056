"""``protclip serve`` as a process of its own, as an operator has it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests
from ports import free_port

from cluster.processes import end_marked, mark_of, marked
from serve.haproxy import SOCKET

COMMAND = (sys.executable, "-m", "protclip")
HANGS_S = 240.0
"""What is not done by then hangs; short enough that CI ends in time all the same."""
LOGS = {"log_level": "WARNING", "enable_access_log": False}
"""Of Serve in tests, as ``protclip serve`` has them: what goes wrong is shown, and not each request."""


class Running:
    """A server that was started; it lives until it is ended, or to the end of the block."""

    def __init__(
        self,
        index: str,
        checkpoint: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        """Start it, on a Ray of its own and a free port unless one is said, without waiting."""
        self.folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short, for the sockets of its Ray
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.env = {**own, "TMPDIR": str(self.folder), **(env or {})}
        self.process = subprocess.Popen(
            [*COMMAND, "serve", index, "--checkpoint", checkpoint, "--port", str(self.port), *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_ready(self) -> Running:
        """Wait until it says that it is ready."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("ready: "):
                return self
        raise AssertionError(f"it ended with {self.process.wait()}: {self.said}")

    def swap(self, name: str, index: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Give it another index by the command, which finds it by itself."""
        command = [*COMMAND, "swap-index", name, index, *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=600)

    def children(self) -> list[psutil.Process]:
        """Processes below it, its Ray's."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, name: str) -> list[psutil.Process]:
        """Those of its processes whose first argument holds the name."""
        found = []
        for process in self.children():
            try:
                if name in process.cmdline()[0]:
                    found.append(process)
            except (psutil.Error, IndexError):
                continue
        return found

    def peak_mb(self) -> int:
        """The most memory that a replica of it has had, in MB."""
        status = [Path(f"/proc/{one.pid}/status").read_text() for one in self.named("ServeReplica")]
        return max(int(peak[1]) >> 10 for one in status if (peak := re.search(r"VmHWM:\s+(\d+) kB", one)))

    def num_up(self) -> int:
        """Replicas to which its HAProxy sends requests."""
        for path in self.folder.glob(f"*/*/*/{SOCKET}"):
            answer = b""
            with socket.socket(socket.AF_UNIX) as console, contextlib.suppress(OSError):
                console.connect(str(path))
                console.sendall(b"show stat\n")
                while received := console.recv(65536):
                    answer += received
            return sum(b"SERVE_REPLICA" in line and b",UP," in line for line in answer.splitlines())
        return 0

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, to it alone."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = HANGS_S) -> int:
        """Its exit code, with what it said since in ``said``."""
        output, _ = self.process.communicate(timeout=timeout_s)
        self.said += output
        return self.process.returncode

    def left(self) -> list[str]:
        """What is there of it: processes by their names, folders, its port."""
        new = [path for path in self.folder.glob("*/*") if path.is_dir()]
        processes = [process for path in new for process in marked(path.name)]
        processes += [process for process in psutil.process_iter() if self._in_session(process)]
        ports = [
            one.laddr.port for one in psutil.net_connections("tcp") if one.laddr and one.status == psutil.CONN_LISTEN
        ]
        return [
            *(f"{process.name()} {mark_of(process)}" for process in processes if process.is_running()),
            *map(str, new),
            *(f"port {port}" for port in ports if port == self.port),
        ]

    def kill(self) -> None:
        """End what is left of it, whatever happened."""
        self.process.kill()
        self.process.communicate()
        for path in self.folder.glob("*/*"):
            end_marked(path.name)
        shutil.rmtree(self.folder)

    def _in_session(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.Error):
            return False


class Load:
    """Clients that ask one thing after another, until the end of the block."""

    def __init__(
        self,
        url: str,
        body: dict[str, object],
        *,
        num_clients: int,
        problem: Callable[[Any], str | None] = lambda _: None,
    ) -> None:
        """Ask ``url`` with ``body``; ``problem`` says what is wrong with the JSON of an answer, if anything."""
        self.url = url
        self.body = body
        self._problem = problem
        self.answered: list[tuple[float, float]] = []
        """When each request was sent and answered with 200, by ``time.monotonic``."""
        self.failed: list[tuple[float, float, str]] = []
        """The others, with what came instead."""
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        session = requests.Session()
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                answer = session.post(self.url, json=self.body, timeout=60)
                good = answer.status_code == 200
                problem = self._problem(answer.json()) if good else f"{answer.status_code} {answer.text[:200]}"
            except requests.RequestException as error:
                problem = repr(error)[:200]
            end = time.monotonic()
            if problem is None:
                self.answered.append((start, end))
            else:
                self.failed.append((start, end, problem))
                time.sleep(0.05)


def wait_until(is_true: Callable[[], object], what: str, timeout_s: float = HANGS_S) -> None:
    """Look again and again until it is true."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
