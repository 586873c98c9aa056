"""Whether a server can listen."""

from __future__ import annotations

import socket

from protclip.errors import ConfigError


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
