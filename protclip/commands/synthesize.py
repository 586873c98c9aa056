"""``protclip synthesize``: a synthetic proteome as a flat file."""

from __future__ import annotations

import gzip

import click

from protclip import files
from protclip.errors import ConfigError
from protclip.protanno.synthetic import synthetic_proteome
from protclip.terminal import echo


@click.command()
@click.option("--output", required=True, help="The flat file to write, .dat or .dat.gz: a path or an fsspec URL.")
@click.option("--entries", default=6600, show_default=True, help="Number of entries.")
@click.option("--families", default=110, show_default=True, help="Number of families they come in.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bytes.")
def main(output: str, entries: int, families: int, seed: int) -> None:
    """Write a synthetic proteome in UniProtKB's flat-file format, for trials without data.

    Families of proteins share motifs, and their texts mention them; nothing in it is real.
    """
    if not output.endswith((".dat", ".dat.gz")):
        raise ConfigError(f"output {output!r}: the file's name must end in .dat or .dat.gz.")
    text = "".join(synthetic_proteome(entries, families, seed)).encode()
    with files.atomic_write(files.absolute(output)) as stream:
        # No time stamp in the header: equal proteomes are equal files.
        stream.write(gzip.compress(text, compresslevel=6, mtime=0) if output.endswith(".gz") else text)
    echo(f"synthesize: {entries:,} synthetic entries of {families} families (none is real) → {output}")
