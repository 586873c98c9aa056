"""What a process cannot say when its raylet dies: Ray's core may end it in that moment, without a word.

``on_silent_end`` starts a small process that waits for the end of this one, and then says it.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Callable

import psutil

from cluster.processes import is_alive


def on_silent_end(raylet: psutil.Process, line: str) -> Callable[[str | None], None]:
    """Have a line written to standard error should this process be ended, and the raylet be dead by then.

    Args:
        raylet: of this machine.
        line: what is said.

    Returns:
        Has another line written instead, at once, which nothing can come before any more; or, with None, nothing. The
        end of the interpreter does the latter.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.last_words", str(raylet.pid), str(raylet.create_time()), line],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )

    def say_instead(other: str | None) -> None:
        if process.poll() is None:
            process.communicate(f"{other or ''}\n".encode())
        elif other is not None:
            sys.stderr.write(other + "\n")

    atexit.register(say_instead, None)
    return say_instead


def main() -> None:
    """Wait for a line, or for the end of whoever would write it."""
    pid, created, line = sys.argv[1:]
    if other := sys.stdin.buffer.readline():
        sys.stderr.write(other.decode().lstrip("\n"))
        return
    try:
        raylet = psutil.Process(int(pid))
        lives = raylet.create_time() == float(created) and is_alive(raylet)
    except psutil.NoSuchProcess:
        lives = False
    if not lives:
        sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
