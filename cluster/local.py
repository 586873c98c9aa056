"""``python -m cluster.local``: start, list, disturb and end Ray clusters of several hosts on this machine."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from cluster.hosts import DEFAULT_NAME, LocalCluster, Settings, find, names
from protclip.errors import ProtclipError
from protclip.terminal import echo

_name_option = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Of the cluster.")
_host_argument = click.argument("host")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A Ray cluster of several hosts on this machine, as network namespaces; needs Linux and root."""


@cli.command("up")
@_name_option
@click.option("--hosts", default=3, show_default=True, help="With a Ray node each.")
@click.option("--clients", default=0, show_default=True, help="Hosts without one, to submit jobs from.")
@click.option("--cpus", default=1, show_default=True, help="Logical CPUs of each node.")
@click.option("--object-store-mb", default=200, show_default=True, help="Shared memory of each node.")
def up_command(**settings: Any) -> None:
    """Start a cluster."""
    cluster = LocalCluster(Settings(**settings))
    start = time.monotonic()
    cluster.up()
    echo(f"{cluster.settings.name}: up after {time.monotonic() - start:.0f} s, jobs at {cluster.dashboard_url}")
    echo("\n".join(cluster.describe()))


@cli.command("list")
def list_command() -> None:
    """List the clusters and their hosts."""
    for name in names():
        cluster = find(name)
        echo(f"{name}: jobs at {cluster.dashboard_url}, token in {cluster.token_path}")
        echo("\n".join(cluster.describe()))


@cli.command("down")
@_name_option
def down_command(*, name: str) -> None:
    """End a cluster, and remove all that belongs to it."""
    cluster = LocalCluster(Settings(name=name))  # its record may be damaged
    there = name in names()
    cluster.down()
    echo(f"{name}: {'down' if there else 'was not up'}")


@cli.command("run", context_settings={"ignore_unknown_options": True})
@_name_option
@_host_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(*, name: str, host: str, command: tuple[str, ...]) -> None:
    """Run a command on a host, with what it needs to find the cluster."""
    sys.exit(find(name).run(host, command).returncode)


@cli.command("limit")
@_name_option
@_host_argument
@click.argument("rate")
@click.option("--delay", help="Such as 20ms, each way; needs a kernel with netem.")
def limit_command(*, name: str, host: str, rate: str, delay: str | None) -> None:
    """Limit a host's link to a RATE such as 10mbit in both directions; the rate none lifts the limit."""
    find(name).limit(host, None if rate == "none" else rate, delay=delay)


def _add(verb: str, words: str) -> None:
    @cli.command(verb, help=words)
    @_name_option
    @_host_argument
    def command(*, name: str, host: str) -> None:
        getattr(find(name), verb)(host)


_add("cut", "Take a host from the network; its processes go on.")
_add("restore", "Bring a host back to the network.")
_add("kill", "SIGKILL to all processes of a host.")
_add("start", "Start a Ray node on a host again.")


def main() -> None:
    """Run the command; an error that the user can mend is one line and exit status 1."""
    try:
        cli(prog_name="python -m cluster.local")
    except ProtclipError as error:
        echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
