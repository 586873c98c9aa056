"""``protclip fetch-uniprot``: entries or release files from UniProt's servers."""

from __future__ import annotations

import datetime
import sys

import click

from protclip import files
from protclip.errors import ConfigError
from protclip.terminal import echo


@click.command()
@click.option("--query", help="In UniProt's syntax, such as 'reviewed:true AND organism_id:9606'.")
@click.option(
    "--release-file", metavar="NAME", help="A whole file of the current release, such as uniprot_sprot.dat.gz."
)
@click.option(
    "--output", required=True, help="File to write (a folder will do for --release-file): path or fsspec URL."
)
@click.option("--limit", type=click.IntRange(min=1), help="Entries at most, the best annotated first; with --query.")
@click.option(
    "--base-url", help="Another server: of the REST service, or the folder with the release file on a mirror."
)
@click.option("--overwrite", is_flag=True, help="Begin anew: replace a finished file, discard an unfinished one.")
def main(
    *,
    query: str | None,
    release_file: str | None,
    output: str,
    limit: int | None,
    base_url: str | None,
    overwrite: bool,
) -> None:
    """Fetch UniProtKB: what a query finds, or a file of the current release.

    The output's ending decides on a query's format: .dat or .txt (flat file), .tsv, .fasta or .xml, each with or
    without .gz; a TSV has the columns that curation reads. Of the release, uniprot_sprot.dat.gz has the reviewed
    entries and uniprot_trembl.dat.gz all others; MD5 and size are checked.

    Interrupted, it goes on where it stopped when the same command is run again. OUTPUT.json says what was fetched:
    query or URL, release, entries, bytes, SHA-256. UniProt's data is under CC BY 4.0.

    \b
        protclip fetch-uniprot --query "reviewed:true AND organism_id:9606" --output human.dat.gz
        protclip fetch-uniprot --release-file uniprot_sprot.dat.gz --output .
    """
    if (query is None) == (release_file is None):
        raise ConfigError("fetch-uniprot needs one thing to fetch: give either --query or --release-file.")
    if limit is not None and query is None:
        raise ConfigError("--limit counts the entries of a query; a release file is fetched whole.")

    from protclip.http_client import Client
    from protclip.uniprot.fetch import RELEASE_URL, REST_URL, fetch_query, fetch_release_file, format_of

    if release_file is not None and (output.endswith("/") or files.is_folder(output)):
        output = files.join(output, release_file)
    output = files.absolute(output)
    if query is not None:
        format_of(output)
    base_url = (base_url or (REST_URL if query is not None else RELEASE_URL)).rstrip("/")
    client = Client(tell=_tell_waiting)
    client.reach(base_url)
    now = datetime.datetime.now(datetime.UTC)
    if query is not None:
        record = fetch_query(
            query,
            output,
            client=client,
            now=now,
            base_url=base_url,
            limit=limit,
            overwrite=overwrite,
            tell=echo,
        )
        what = f"{record['entries']:,} entries"
    else:
        assert release_file is not None
        record = fetch_release_file(
            release_file, output, client=client, now=now, base_url=base_url, overwrite=overwrite, tell=echo
        )
        what = release_file
    echo(f"fetch-uniprot: {what} of UniProt {record['release']}, {record['bytes']:,} bytes → {output}")


def _tell_waiting(line: str) -> None:
    from tqdm import tqdm

    if sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
