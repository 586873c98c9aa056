"""What benchmarks/serve_search.py measures, in one Ray behind one proxy, until its standard input ends.

    python benchmarks/serve_apps.py PORT INDEX CHECKPOINT

    /v1/search       the application
    /noop/           a route of FastAPI that reads the same body and does nothing
    /old/search      the server as it was (serve_old_chain.py)

RAY_SERVE_ENABLE_HA_PROXY=0 takes Serve's own proxy.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the route.

import contextlib
import json
import logging
import os
import sys
import time
import urllib.request

from cluster.environment import prepare_environment

prepare_environment()
os.environ.setdefault("RAY_worker_niceness", "0")

from cluster.connection import leave, start_or_join  # noqa: E402
from serve.front import use_front  # noqa: E402
from serve.haproxy import use_haproxy  # noqa: E402


def main() -> None:
    """Start all, say so, wait."""
    port, index, checkpoint = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    use_front()
    start_or_join(
        object_store_bytes=256 * 2**20,
        before_start=lambda folder: use_haproxy(folder, host="127.0.0.1", port=port),
    )
    import serve_old_chain
    from fastapi import FastAPI, Response
    from ray import cloudpickle, serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    from serve.app import application as our_application
    from serve.settings import AppArgs

    cloudpickle.register_pickle_by_value(serve_old_chain)  # type: ignore[no-untyped-call]  # replicas find no folder of benchmarks
    noop = FastAPI()

    @noop.post("/")
    async def nothing(body: serve_old_chain.Body) -> Response:
        return Response(json.dumps({"k": body.k}), media_type="application/json")

    @serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=1_000)
    @serve.ingress(noop)
    class Noop:
        pass

    try:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        logs = LoggingConfig(log_level="WARNING", enable_access_log=False)
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=logs)
        apps = {
            "application": (our_application(AppArgs(checkpoint=checkpoint, keys="none"), {"default": index}), "/"),
            "noop": (Noop.bind(), "/noop"),  # type: ignore[attr-defined]
            "old": (serve_old_chain.build_old_chain(index, checkpoint), "/old"),
        }
        for name, (app, prefix) in apps.items():
            serve.run(app, name=name, route_prefix=prefix, logging_config=logs)
        wait_for(f"http://127.0.0.1:{port}/old/search")
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        leave()


def wait_for(url: str) -> None:
    """Until the proxy, which starts by itself, knows the last of the applications."""
    body = json.dumps({"text": "Binds iron."}).encode()
    for _ in range(600):
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10):
                return
        time.sleep(0.1)
    raise SystemExit("error: the applications do not answer.")


if __name__ == "__main__":
    main()
