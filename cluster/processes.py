"""Processes of a Ray of our own, found by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

from cluster.environment import MARK_VARIABLE

END_S = 10.0
"""For processes to end after SIGKILL."""


def marked(mark: str) -> list[psutil.Process]:
    """Running processes that carry the mark."""
    everything = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in everything if mark_of(process) == mark and is_alive(process)]


def end_marked(mark: str) -> None:
    """SIGKILL to all that carry the mark and all below them, until there are none; gives up after END_S."""
    deadline = time.monotonic() + END_S
    while (processes := marked(mark)) and time.monotonic() < deadline:
        for process in list(processes):
            with contextlib.suppress(psutil.Error):
                # Ray's agents write their names over their environment.
                processes += process.children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        while any(map(is_alive, processes)) and time.monotonic() < deadline:
            time.sleep(0.02)


def mark_of(process: psutil.Process) -> str | None:
    """The mark of a process; None where it has none, or is not ours to look into."""
    try:
        mark: str | None = process.environ().get(MARK_VARIABLE)
    except (psutil.Error, OSError):
        return None
    return mark


def is_alive(process: psutil.Process) -> bool:
    """False for a zombie too: it only waits for its parent to take note."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
