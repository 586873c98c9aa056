"""``protclip quickstart``: the whole way once, from UniProt rows to HTTP answers, on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from protclip import files
from protclip.errors import ConfigError
from protclip.terminal import echo
from ray_jobs.local_head import stop_head
from ray_jobs.quickstart.folder import claim_folder
from ray_jobs.quickstart.run import BIN, SYNTHETIC, Run


@click.command()
@click.option(
    "--data",
    metavar=f"FILE|{SYNTHETIC}",
    help="A file that curate reads, or a synthetic proteome. Default: 2,000 proteins of UniProt, downloaded once; "
    "synthetic ones if they cannot be downloaded.",
)
@click.option(
    "--output", default="quickstart", show_default=True, help="Folder for everything; an earlier run is wiped."
)
@click.option("--keep", is_flag=True, help="Leave the server and its Ray running.")
@click.option("--stop", is_flag=True, help="Only end what an earlier --keep left running in the folder.")
def main(*, data: str | None, output: str, keep: bool, stop: bool) -> None:
    """Run everything once on this machine: curate, pretrain, embed, index, serve and query."""
    output = files.absolute(output)
    if stop:
        stopped = stop_head(files.join(output, "ray"))
        echo("stopped" if stopped else f"nothing of a quickstart in {output} is running")
        return
    if data not in (None, SYNTHETIC) and not files.exists(data):
        raise ConfigError(
            f"--data {data}: there is no such file; name a UniProtKB file that curate reads, or {SYNTHETIC}."
        )
    signal.signal(signal.SIGTERM, _as_interrupt)
    claim_folder(output)
    run = Run(output=output)
    kept = False
    try:
        run.whole_way(data)
        kept = keep
    finally:
        if not kept:
            # A second Ctrl-C must not leave processes behind.
            with _signals_ignored():
                stop_head(run.path("ray"))
    if kept:
        where = [] if output == files.absolute("quickstart") else ["--output", output]
        echo(f"\nThe server stays up: {run.url}  (routes and forms: {run.url}/docs)")
        echo(f"Stop it, and its Ray: {shlex.join([_shown(BIN / 'protclip'), 'quickstart', '--stop', *where])}")


def _shown(path: Path) -> str:
    """The path as one would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
