"""Replicas listen where their node does."""

from __future__ import annotations

from typing import Any

from cluster.environment import is_loopback


def keep_to_loopback() -> None:
    """Have this replica's port for other replicas listen on the loopback alone if its node does.

    Ray Serve opens it on all interfaces, with no setting for it (Ray 2.60), after the deployment's constructor ran:
    call it there.
    """
    import ray
    from ray.serve._private import replica

    internals: Any = replica
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    add_port = internals.add_port_to_grpc_server
    if is_loopback(address):
        host = f"[{address}]" if ":" in address else address
        internals.add_port_to_grpc_server = lambda server, where: add_port(server, where.replace("[::]", host))
