"""``protclip serve``: the application on this machine, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import click


@click.command()
@click.argument("index")
@click.option("--checkpoint", required=True, help="Folder or URL of the model that made the index.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def main(*, index: str, checkpoint: str, host: str, port: int) -> None:
    """Serve embedding and search in the INDEX over HTTP, in the dtype of the index.

    It starts a Ray of its own on this machine, or joins the one that RAY_ADDRESS names:

    \b
        protclip serve my-index --checkpoint runs/tiny/best --port 8000

    The routes are POST /v1/embed, POST /v1/search, GET /health and, with forms to try them, GET /docs. Ctrl-C or
    SIGTERM ends it after what is under way was answered; a second one ends it at once.
    """
    from serve.signals import Signals

    signals = Signals()  # before libraries are loaded that start threads
    from serve.server import run

    run(index, checkpoint, host, port, signals)
