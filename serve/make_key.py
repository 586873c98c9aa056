"""``protclip make-key``: a key for a client of a server."""

from __future__ import annotations

import click

from protclip.terminal import echo
from serve.keys import new_key


@click.command()
@click.argument("name")
@click.option(
    "--rate", type=float, help="Requests a second that the client may send to each replica.  [default: any number]"
)
def main(*, name: str, rate: float | None) -> None:
    """Make a key for the client NAME of a server with `protclip serve --keys FILE`.

    The key is printed once, on standard error, and stored nowhere. Standard output is the line for FILE, with its hash:

    \b
        protclip make-key alice --rate 10 >> keys.txt
    """
    key, line = new_key(name, rate=rate)
    echo(f"The key of {name}, shown this once: {key}", err=True)
    echo(line)
