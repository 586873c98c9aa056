"""SIGTERM and Ctrl-C, taken by the main thread when it looks for them.

Ray's core takes SIGTERM for a crash, with a handler that aborts the process; Python's own handlers interrupt whatever
is under way. So both signals are blocked, in all threads, and wait until they are fetched. Ray's processes inherit
that: a signal that is sent to all of them, as Ctrl-C is in a terminal, leaves it to the main one how they end.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The signals that have come, from its creation on."""

    def __init__(self) -> None:
        """Block them in this thread, the main one, and in those that it starts from now on."""
        self._taken: list[int] = []
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def received(self) -> list[int]:
        """All that have come so far, in their order."""
        while pending := signal.sigpending() & set(SIGNALS):
            self._taken.append(signal.sigwait(pending))
        return self._taken

    def unblock(self) -> None:
        """Let them do what they did before."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
