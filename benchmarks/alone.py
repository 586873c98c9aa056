"""A measurement in a process of its own, by processor time and memory: other work on the machine moves neither much."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def alone(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(measure, *arguments).result()
    print(measure.__name__, *arguments, found, file=sys.stderr, flush=True)
    return found


class Clock:
    """Processor time and memory since it was made."""

    def __init__(self) -> None:
        self.before, self.resident = time.process_time(), _resident_mb()

    def s(self) -> float:
        """Seconds of this process's processor time; the clock then starts again."""
        now = time.process_time()
        self.before, before = now, self.before
        return now - before

    def peak_mb(self) -> float:
        """The most memory that there was, above that of the start."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - self.resident


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
