"""What Ray writes of good runs and what reads like trouble: it stays in Ray's log files, and off the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

CORE_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
"""What a process of Ray's core logs at least; read when it connects."""

_HARMLESS = re.compile(
    # Ray's own actors, of Data and Train, are made so: each run has this line, as an error.
    r"core_worker\.cc:\d+: Actor with class name: .* has constructor arguments in the object store and max_restarts > 0"
    # A busy machine: the next try comes by itself, in seconds.
    r"|Failed to get reserved resources for .*; falling back to the cached value"
    r"|AutoscalingCoordinator tick failed; reservations may be stale"
    # The list of what Serve's throughput mode switches on.
    r"|Throughput optimized Ray Serve enabled|^ +• |^\s*$"
)
_EXPECTED = (
    f"Set ray log level from environment variable {CORE_LOG_LEVEL}",
    # Where the main thread does other things than Ray, and minds the signals itself.
    "SIGTERM handler is not set because current thread is not the main thread",
)


@contextlib.contextmanager
def quiet_core() -> Iterator[None]:
    """Within it ``ray.init`` connects a driver whose core logs nothing: its errors have no file but the terminal.

    What goes wrong in Ray comes to a driver as an exception. A level that the user has set stays.
    """
    if CORE_LOG_LEVEL in os.environ:
        yield
        return
    os.environ[CORE_LOG_LEVEL] = "fatal"
    try:
        with _standard_error_without(_EXPECTED):
            yield
    finally:
        del os.environ[CORE_LOG_LEVEL]


def hide_harmless_lines() -> None:
    """Leave out such lines of what Ray shows here of its workers; after ``ray.init``."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    name = "ray_print_logs"  # the one that ray.init adds and ray.shutdown removes
    show = dict(dispatcher.handlers)[name]

    def show_the_rest(data: dict[str, Any]) -> None:
        show({**data, "lines": [line for line in data.get("lines", []) if not _HARMLESS.search(line)]})

    dispatcher.remove_handler(name)
    dispatcher.add_handler(name, show_the_rest)


@contextlib.contextmanager
def _standard_error_without(phrases: tuple[str, ...]) -> Iterator[None]:
    """What is written there, by this process's libraries too, comes at the end of the block, but for some lines."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not any(words.encode() in line for words in phrases)))
