"""Ports of this machine for tests."""

from __future__ import annotations

from cluster.ports import free_ports


def free_port() -> int:
    """A port that nothing listens on, and that no outgoing connection takes before somebody does."""
    return free_ports(1)[0]
