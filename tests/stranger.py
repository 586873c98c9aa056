"""Whoever reaches a cluster and has no token: what it is answered. Run on a host: ``stranger.py ADDRESS:PORT…``.

Calls every method of every gRPC service that Ray has, and asks every port for HTTP. Prints JSON: for each port what was
answered, and how many calls were refused for want of a token.
"""

from __future__ import annotations

import http.client
import importlib
import json
import pkgutil
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import ray.core.generated

SYNC = "/ray.rpc.syncer.RaySyncer/StartSync"
"""The call that asks for no token, and ends who is called."""
NO_CONNECTION, REFUSED, METRICS = "no connection", "refused", "metrics"
OBJECTS = {f"/ray.rpc.ObjectManagerService/{name}" for name in ("Push", "Pull")}
"""Of a service that Ray has no descriptor of in Python."""
TIMEOUT_S = 5.0
PATHS = (
    "/",
    "/api/version",
    "/api/jobs/",
    "/api/jobs/none/logs",
    "/nodes?view=summary",
    "/api/cluster_status",
    "/api/v0/actors",
    "/api/v0/logs?node_ip=10.77.0.1",
    "/api/v0/logs/file?node_ip=10.77.0.1&filename=gcs_server.out",
    "/api/actors/kill?actor_id=0&force_kill=true",
    "/api/serve/applications/",
    "/api/packages/gcs/none.zip",
    "/worker/traceback?pid=1",
    "/logs/",
    "/static/",
    "/api/gcs_healthz",
    "/api/local_raylet_healthz",
    "/-/routes",
    "/info",
    "/metrics",
)
"""Of the dashboard, its agents, the agent of runtime environments and Serve."""
POSTS = (
    "/api/jobs/",
    "/api/job_agent/jobs/",
    "/get_or_create_runtime_env",
    "/delete_runtime_env_if_possible",
    "/report_events",
)


def main() -> None:
    """Try everything."""
    given = sys.argv[1:]
    with ThreadPoolExecutor(8) as pool:
        print(json.dumps(dict(zip(given, pool.map(_all, given), strict=True))))


def _all(address: str) -> tuple[list[str], int]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), TIMEOUT_S).close()
    except OSError:
        return [NO_CONNECTION], 0
    found = [*_by_grpc(address), *_by_http(address)]
    answered = dict.fromkeys(one for one in found if one != REFUSED)
    return list(answered), found.count(REFUSED)


def methods() -> list[str]:
    """All gRPC methods of Ray."""
    found = set()
    for module in pkgutil.iter_modules(ray.core.generated.__path__):
        if module.name.endswith("_pb2"):
            described = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in described.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return sorted(found - {SYNC} | OBJECTS)


def start_sync(address: str) -> None:
    """Make that call, as one that knows no token may."""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.stream_stream(SYNC)(iter([b""]), timeout=TIMEOUT_S)
        try:
            list(call)
        except grpc.RpcError as error:
            print(error.code().name)


def _by_grpc(address: str) -> Iterator[str]:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return
        for method in methods():
            try:
                answer = channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                yield f"{method} {len(answer)} bytes"
            except grpc.RpcError as error:
                code = error.code().name
                if code == "UNIMPLEMENTED":
                    continue
                yield REFUSED if code == "UNAUTHENTICATED" else f"{method} {code} {error.details()[:80]}"


def _by_http(address: str) -> Iterator[str]:
    for verb, path in [
        *(("GET", path) for path in PATHS),
        *(("POST", path) for path in POSTS),
        ("DELETE", "/api/jobs/none"),
    ]:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
        try:
            connection.request(verb, path, body=b"{}" if verb == "POST" else None)
            answer = connection.getresponse()
            body = answer.read(200)
        except (OSError, http.client.HTTPException):
            return  # no HTTP here
        finally:
            connection.close()
        if answer.status in (404, 405):
            continue
        if answer.status in (401, 403):
            yield REFUSED
        elif body.startswith(b"# HELP"):
            yield METRICS
        else:
            yield f"{verb} {path}: {answer.status}"


if __name__ == "__main__":
    if sys.argv[1] == "start-sync":
        start_sync(sys.argv[2])
    else:
        main()
