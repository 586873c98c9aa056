"""Ports of this machine."""

from __future__ import annotations

import secrets
import socket


def free_ports(count: int) -> list[int]:
    """Distinct ports that are free now, below the range from which outgoing connections are served."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            probe = socket.socket()
            try:
                probe.bind(("", 20000 + secrets.randbelow(12000)))
            except OSError:
                probe.close()
                continue
            sockets.append(probe)
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
