"""``protclip fetch-protanno``: the authors' data set, as it is published."""

from __future__ import annotations

import shlex

import click

from protclip import files
from protclip.terminal import echo


@click.command()
@click.option("--output", required=True, help="Folder for the files: path or fsspec URL.")
@click.option("--file", "names", multiple=True, metavar="NAME", help="One of its files. Default: all.")
@click.option("--base-url", metavar="URL", help="Zenodo's API, or a mirror.")
@click.option("--overwrite", is_flag=True, help="Download anew: replace finished files, discard unfinished ones.")
def main(*, output: str, names: tuple[str, ...], base_url: str | None, overwrite: bool) -> None:
    """Fetch ProtAnno, the protein-text pairs that ProtCLIP was trained on, from its authors' record on Zenodo.

    The files are downloaded unchanged, and compared with the sizes and checksums of the record. Names and sizes are
    printed first. After an interruption, give the same command again, and it goes on where it was. NAME.source records
    the origin of each file: record, DOI, licence, bytes, MD5, SHA-256. curate reads the files of JSON lines,
    {"seq": …, "text": …}.

    \b
        protclip fetch-protanno --output protanno
    """
    from protclip.http_client import Client
    from protclip.published import fetch_protanno, unreadable

    folder = files.absolute(output)
    paths = fetch_protanno(
        folder, client=Client(tell=echo), names=names, api_url=base_url, overwrite=overwrite, tell=echo
    )
    readable = []
    for path in paths:
        if (why := unreadable(path)) is None:
            readable.append(path)
        else:
            echo(f"fetch-protanno: curate does not read {path} as it is: {why}", err=True)
    echo(f"fetch-protanno: {len(paths):,} files → {folder}")
    if readable:
        echo(f"protclip curate {shlex.join(readable)} --output pairs")
