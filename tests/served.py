"""``protclip serve`` as a process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from ports import free_port


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that is ready."""

    port: int
    process: psutil.Process

    def peak_mb(self) -> int:
        """The most memory that a replica of it has had, in MB."""
        children = self.process.children(recursive=True)
        replicas = [one.pid for one in children if "ServeReplica" in " ".join(one.cmdline()[:1])]
        peaks = [re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in replicas]
        return max(int(peak[1]) >> 10 for peak in peaks if peak)


@contextlib.contextmanager
def served(index: str, checkpoint: str, home: Path, *options: str, haproxy: bool = True) -> Iterator[Served]:
    """Start it with a Ray of its own, and stop it with SIGTERM.

    Args:
        index: what is served.
        checkpoint: its model.
        home: an empty folder, in place of the user's.
        options: further ones of the command.
        haproxy: whether HAProxy stands before it.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home)} | ({} if haproxy else {"RAY_SERVE_ENABLE_HA_PROXY": "0"})
    command = [sys.executable, "-m", "protclip", "serve", index, "--checkpoint", checkpoint]
    port = free_port()
    with subprocess.Popen(
        [*command, "--port", str(port), *options], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any(re.search(r"^ready: ", line) for line in process.stdout)
            yield Served(port=port, process=psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
