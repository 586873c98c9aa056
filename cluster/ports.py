"""Ports of this machine."""

from __future__ import annotations

import secrets
import socket

from protclip.errors import ConfigError


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


def check_port(host: str, port: int) -> None:
    """Raise ConfigError where nothing can listen: Serve would say so late and at length."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port."
        ) from error
