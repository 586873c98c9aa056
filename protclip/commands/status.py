"""``protclip status``: how far a pipeline or a stage is, from its folder alone."""

from __future__ import annotations

import dataclasses

import click

from protclip import files
from protclip.terminal import echo, json_text


@click.command()
@click.argument("folder")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with everything instead of the table.")
@click.option("--html", "page", metavar="FILE", help="Also write one HTML page, a path or URL.")
def main(*, folder: str, as_json: bool, page: str | None) -> None:
    """Show how far the pipeline in FOLDER is: its stages, what is committed, time left, last checkpoint, failures.

    FOLDER is a path or URL. All is read from there: it needs no Ray, and no process that runs. FOLDER may also be that
    of one stage: pairs, a run of pretrain, an evaluation, embeddings or an index, finished or not.

    "running" means that a run holds the folder now; "stopped" that a stage was begun and no run is at work: give its
    command again, and it goes on. The time left is by the pace of what was committed since the last start.

    \b
        protclip status s3://bucket/release-1
        watch -n 10 protclip status /data/release-1
    """
    from protclip.pipeline.page import status_page, status_text
    from protclip.pipeline.status import read_status

    status = read_status(files.absolute(folder))
    if page is not None:
        with files.atomic_write(files.absolute(page)) as stream:
            stream.write(status_page(status).encode(errors="backslashreplace"))  # half a letter, in a name
    echo(json_text(dataclasses.asdict(status), indent=2) if as_json else status_text(status))
