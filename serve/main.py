"""``protclip serve``: the application on this machine, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from types import FrameType

import click

from cluster import environment
from cluster.connection import leave, start_or_join
from protclip import files
from protclip.errors import ConfigError
from protclip.terminal import echo
from serve.haproxy import use_haproxy
from serve.settings import AppArgs, check_args

APP_NAME = "protclip"
OBJECT_STORE_BYTES = 256 * 2**20
"""Of a Ray that is started here: what travels between the replicas is small, and Ray would take 30 % of the memory."""


@click.command()
@click.argument("index")
@click.option("--checkpoint", required=True, help="Folder or URL of the model that made the index.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--replicas", default=1, show_default=True, type=click.IntRange(1), help="Copies of model and index that answer."
)
def main(*, index: str, checkpoint: str, host: str, port: int, replicas: int) -> None:
    """Serve embedding and search in the INDEX over HTTP, in the dtype of the index.

    It starts a Ray of its own on this machine, or joins the one that RAY_ADDRESS names:

    \b
        protclip serve my-index --checkpoint runs/tiny/best --port 8000

    The routes are POST /v1/embed, POST /v1/search, GET /health and, with forms to try them, GET /docs.
    """
    args = AppArgs(index=files.absolute(index), checkpoint=files.absolute(checkpoint), num_replicas=replicas)
    check_args(args, verify=not files.is_url(args.index))
    environment.refuse_open_door(host, f"--host {host}")
    _check_port(host, port)
    try:
        _run(args, host, port)
    except KeyboardInterrupt:
        echo("stopped")


def _run(args: AppArgs, host: str, port: int) -> None:
    """Start Ray and the application, and wait for a signal."""
    signal.signal(signal.SIGTERM, _interrupt)

    import ray

    # Ray runs its workers at niceness 15: on a busy machine the server would start and answer last of all.
    os.environ.setdefault("RAY_worker_niceness", "0")
    joined = environment.address() is not None
    try:
        # Behind HAProxy the replicas' own ports listen where the front does.
        before_start = use_haproxy if environment.is_loopback(host) else None
        start_or_join(object_store_bytes=OBJECT_STORE_BYTES, before_start=before_start)
        signal.signal(signal.SIGTERM, _interrupt)  # Ray has set a handler of its own
        # Serve is imported after its variables were set.
        from ray import serve
        from ray.serve.config import HTTPOptions
        from ray.serve.schema import LoggingConfig

        from serve.app import build_app

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        logs = LoggingConfig(log_level="WARNING", enable_access_log=False)
        serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=logs)
        try:
            serve.run(build_app(args), name=APP_NAME, route_prefix="/", logging_config=logs)
        except RuntimeError as error:
            raise ConfigError(f"the application did not start: {error}") from error
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        echo(f"ready: {url}  (routes and forms: {url}/docs; Ctrl-C stops it)")
        threading.Event().wait()
    finally:
        # A second signal must not leave processes behind.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if ray.is_initialized():
            from ray import serve

            if joined:
                serve.delete(APP_NAME)
            if not joined or not serve.status().applications:
                serve.shutdown()  # type: ignore[no-untyped-call]
            leave()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _check_port(host: str, port: int) -> None:
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
