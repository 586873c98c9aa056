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


def on_silent_end(raylet: psutil.Process, line: str) -> Callable[[], None]:
    """Have a line written to standard error should this process be ended, and the raylet be dead by then.

    Args:
        raylet: of this machine.
        line: what is said.

    Returns:
        Takes that back, as the end of the interpreter does.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.last_words", str(raylet.pid), str(raylet.create_time()), line],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )

    def take_back() -> None:
        if process.poll() is None:
            process.communicate(b".")

    atexit.register(take_back)
    return take_back


def main() -> None:
    """Wait for a byte, or for the end of whoever would write it."""
    pid, created, line = sys.argv[1:]
    if sys.stdin.buffer.read(1):
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
