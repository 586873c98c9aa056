"""Where processes listen."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

import psutil


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def names(processes: Iterable[psutil.Process]) -> set[str]:
    """Of those that still live."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return found


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """(address, port) of all their listening sockets; an IPv4 address is given as one, however the socket has it."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.add((one.laddr.ip.removeprefix("::ffff:"), one.laddr.port))
    return found


def open_to_others(sockets: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those that another machine may reach."""
    return [(address, port) for address, port in sockets if not ipaddress.ip_address(address).is_loopback]
