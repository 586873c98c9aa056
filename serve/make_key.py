"""``protclip make-key``: a key for a client of a server."""

from __future__ import annotations

import click

from protclip.terminal import echo
from serve.keys import new_key


@click.command()
@click.argument("name")
@click.option("--rate", type=float, help="Requests a second that it may send to each replica.  [default: any number]")
def main(*, name: str, rate: float | None) -> None:
    """Make a key for NAME, which `protclip serve --keys FILE` takes.

    The key is shown once, on the error output, and kept nowhere. The output is its line for the file, with its hash:

    \b
        protclip make-key alice --rate 10 >> keys.txt
    """
    key, line = new_key(name, rate=rate)
    echo(f"The key of {name}, shown this once: {key}", err=True)
    echo(line)
