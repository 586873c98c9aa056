"""``protclip serve``: the application on this machine, until Ctrl-C or SIGTERM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from serve.settings import AppArgs, UserConfig


@click.command()
@click.argument("index")
@click.option(
    "--checkpoint", required=True, help="Folder, name (such as published) or URL of the model that made the indexes."
)
@click.option(
    "--index",
    "further",
    multiple=True,
    metavar="NAME=INDEX",
    help="A further index of the same model, for requests that name it; INDEX itself is named 'default'.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--num-replicas",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Copies of model and indexes. With two, one may die.",
)
@click.option(
    "--num-gpus",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="GPUs that each copy reserves, or a share of one; above 0, the model computes on it.",
)
@click.option(
    "--keys",
    help="File of the keys that clients must give (`protclip make-key` makes them), or 'environment' for the variable "
    "PROTCLIP_KEYS. Required for a --host outside the loopback.  [default: none]",
)
@click.option(
    "--sequences",
    help="The sequences of the index's proteins, to explain them by accession: FASTA or files of UniProtKB, plain or "
    ".gz, by path, glob or URL, or a folder of pairs. Each copy holds them in memory.",
)
@click.option("--allowed-host", multiple=True, help="Another name to accept in Host headers on the loopback.")
@click.option(
    "--cors-origin", multiple=True, help="An origin whose pages may send requests, such as https://lab.example.org."
)
@click.option("--request-log", help="File to which a line of JSON is appended for each request.")
def main(
    *,
    index: str,
    checkpoint: str,
    further: tuple[str, ...],
    host: str,
    port: int,
    num_replicas: int,
    num_gpus: float,
    keys: str | None,
    sequences: str | None,
    allowed_host: tuple[str, ...],
    cors_origin: tuple[str, ...],
    request_log: str | None,
) -> None:
    """Serve embedding and search in the INDEX over HTTP, in the dtype of the index.

    It starts a Ray of its own on this machine, or joins the one that RAY_ADDRESS names:

    \b
        protclip serve my-index --checkpoint runs/tiny/best --port 8000

    The page / is for searching in a browser, and /docs has all routes with forms to try them: search, embed, score,
    classify, explain and others. `protclip swap-index` replaces an index while the server answers.

    Ctrl-C or SIGTERM ends the server after it has answered the requests under way; a second one ends it at once.
    """
    from serve.signals import Signals

    signals = Signals()  # before libraries are loaded that start threads

    def make_settings() -> tuple[AppArgs, UserConfig]:
        from protclip import files
        from protclip.checkpoint_names import absolute_checkpoint
        from protclip.errors import ConfigError
        from serve.keys import NO_FILES, NO_KEYS
        from serve.settings import DEFAULT_INDEX, AppArgs, read_user_config

        indexes = {DEFAULT_INDEX: index}
        for one in further:
            name, separator, path = one.partition("=")
            if not separator or name in indexes:
                raise ConfigError(f"--index {one}: NAME=INDEX is needed, with a name that no other index has.")
            indexes[name] = path
        config = read_user_config({"indexes": {name: files.absolute(path) for name, path in indexes.items()}})
        args = AppArgs(
            checkpoint=absolute_checkpoint(checkpoint),
            num_replicas=num_replicas,
            num_gpus=num_gpus,
            keys=NO_KEYS if keys is None else keys if keys in NO_FILES else files.absolute(keys),
            sequences=sequences and files.absolute(sequences),
            allowed_hosts=allowed_host,
            cors_origins=cors_origin,
            request_log=request_log and files.absolute(request_log),
        )
        return args, config

    from serve.server import run

    run(make_settings, host, port, signals)
