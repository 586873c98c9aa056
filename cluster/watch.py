"""Whether the Ray of this process still lives: Ray itself takes minutes to notice, and then aborts the process."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from cluster.processes import is_alive

NEEDED = ("gcs_server", "raylet")
"""Without one of them nothing works. A raylet ends when an agent of its node does; others are started again or missed
by nobody."""
TIMEOUT_S = 4.0
"""For an answer of the GCS."""
GONE_S = 8.0
"""So long it may be gone: on some clusters it is started again."""

Watch = Callable[[], str | None]
"""Called from time to time: says what has died, None while all is well."""


def watch_own(node: Any) -> Watch:
    """Watch the processes of a node that this process started."""

    def lost() -> str | None:
        for kind, process in node.dead_processes():
            if kind in NEEDED:
                code = process.returncode
                how = f"was ended by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
                return f"{kind} of its Ray {how}"
        return None

    return lost


def watch_joined(address: str, raylet_socket: str) -> Watch:
    """Watch a cluster: its GCS, and the raylet of this machine.

    Args:
        address: host:port of the GCS.
        raylet_socket: the raylet's socket, as on its command line.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2
    services: Any = gcs_service_pb2_grpc
    raylet = raylet_with(raylet_socket)
    channel = init_grpc_channel(address, [("grpc.enable_http_proxy", 0)])
    nodes = services.NodeInfoGcsServiceStub(channel)

    answered_at = time.monotonic()

    def lost() -> str | None:
        nonlocal answered_at
        if raylet is not None and not is_alive(raylet):
            return f"the raylet of this machine, which is a node of the cluster at {address}, has ended"
        try:
            nodes.CheckAlive(messages.CheckAliveRequest(), timeout=TIMEOUT_S)
            answered_at = time.monotonic()
        except grpc.RpcError:
            if time.monotonic() > answered_at + GONE_S:
                return f"the cluster at {address} has ended: its GCS does not answer"
        return None

    return lost


def raylet_with(raylet_socket: str) -> psutil.Process | None:
    """The raylet with that socket; None where it cannot be seen from here, as in another container."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == "raylet" and f"--raylet_socket_name={raylet_socket}" in process.cmdline():
                return process
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
