"""Whether a cluster can be joined, found out in seconds; Ray itself tries for minutes and then fills the screen."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from cluster import environment
from protclip.errors import ConfigError
from protclip.terminal import echo

TIMEOUT_S = 8.0
"""For each of connecting, the first answer and the second."""


def checked_address(named: str) -> str:
    """host:port of the cluster that RAY_ADDRESS names, after it answered as one that takes us.

    Raises:
        ConfigError: if it does not; with what was tried.
    """
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    host, port = _parse(named)
    where = f"{environment.ADDRESS}={named}"
    environment.refuse_open_door(host, where)
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:  # the second for a name that cannot be one
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{where}: nothing takes connections at {host}:{port} ({reason}; waited up to "
            f"{TIMEOUT_S:.0f} s). Give host:port of a running Ray's GCS, or unset {environment.ADDRESS}: the "
            "command then starts a Ray of its own."
        ) from error
    token = environment.token()
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    messages: Any = gcs_service_pb2
    services: Any = gcs_service_pb2_grpc
    # It sends the token, and knows of TLS. A proxy is no way into a cluster, and Ray takes none.
    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        nodes = services.NodeInfoGcsServiceStub(channel)
        try:
            alive = nodes.CheckAlive(messages.CheckAliveRequest(), timeout=TIMEOUT_S)
            listed = nodes.GetAllNodeInfo(messages.GetAllNodeInfoRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise ConfigError(f"{where}: {_reason(error, has_token=token is not None)}.") from error
    if alive.ray_version != ray.__version__:
        raise ConfigError(f"{where}: runs Ray {alive.ray_version}, and here is {ray.__version__}; use the same.")
    _check_nodes(listed.node_info_list, where)
    if token is None and not environment.is_loopback(host):
        echo(
            f"warning: {where} takes calls without a token: whoever reaches it runs code as its user; see "
            "docs/operations.md",
            err=True,
        )
    return address


def _parse(named: str) -> tuple[str, int]:
    if named == "auto":
        named = _last_started()
    scheme, separator, _ = named.partition("://")
    if separator:
        instead = (
            "Ray Client is not used: give host:port of the GCS (6379 if nothing else was said) and run the command on "
            "a node of the cluster, or submit it with `ray job submit`"
            if scheme == "ray"
            else f"an address of the GCS has no {scheme}://: give its host:port, or set RAY_API_SERVER_ADDRESS={named} "
            "and submit the command with `ray job submit`"
        )
        raise ConfigError(f"{environment.ADDRESS}={named}: {instead}.")
    host, _, port = named.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"{environment.ADDRESS}={named!r}: allowed are host:port of a Ray's GCS, `auto` for the one that "
            "`ray start` started here last, and `local` or nothing for a Ray of our own."
        )
    return host, int(port)


def _last_started() -> str:
    """The address that the last ``ray start`` on this machine left, if it was ours or root's."""
    from ray._private.utils import get_ray_address_file  # type: ignore[attr-defined]

    path = Path(get_ray_address_file(None))
    try:
        owner, found = path.stat().st_uid, path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"{environment.ADDRESS}=auto: no `ray start` on this machine left an address ({path}: {error.strerror}); "
            "give host:port of its GCS."
        ) from error
    if owner not in (os.getuid(), 0):
        raise ConfigError(f"{environment.ADDRESS}=auto: {path} is another user's; give host:port of your Ray's GCS.")
    return found


def _reason(error: Any, *, has_token: bool) -> str:
    import grpc

    code = error.code()
    if code == grpc.StatusCode.UNAUTHENTICATED:
        own, path = environment.AUTH_MODE, environment.AUTH_TOKEN_PATH
        if has_token:
            return f"refuses the token ({own}=token); name the one of this cluster with {path}"
        return f"asks for a token, and none was sent; set {own}=token and {path}"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"takes connections, and did not answer within {TIMEOUT_S:.0f} s as the GCS of a Ray does"
    return f"takes connections, and is no GCS of a Ray ({code.name}); the dashboard has another port"


def _check_nodes(nodes: Any, where: str) -> None:
    """Raise ConfigError if no living node is on this machine: a driver needs one."""
    from ray._private.services import find_node_ids
    from ray.core.generated import gcs_pb2

    state: Any = gcs_pb2
    alive = {node.node_id.hex(): node.node_manager_address for node in nodes if node.state == state.GcsNodeInfo.ALIVE}
    if not alive:
        raise ConfigError(f"{where}: the GCS answers, and none of its nodes is alive.")
    if not alive.keys() & set(find_node_ids()):  # type: ignore[no-untyped-call]
        raise ConfigError(
            f"{where}: this machine is none of its nodes ({', '.join(sorted(set(alive.values()))[:4])}); run the "
            "command on one, or submit it with `ray job submit`."
        )
