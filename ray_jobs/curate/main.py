"""``protclip curate``: UniProtKB files into a folder of pairs, in this process or on Ray."""

from __future__ import annotations

import time
from typing import Any

import click

from protclip import files
from protclip.commands.options import config_options
from protclip.fields import configured
from protclip.protanno.curate import CurateConfig, curate, with_paths
from protclip.protanno.shards import SPLITS
from protclip.terminal import echo
from ray_jobs.cluster import end_with_ray, resolve_input, resolve_output
from ray_jobs.pipelines import suited_run


@click.command()
@config_options(CurateConfig, argument="inputs", metavar="INPUT...")
def main(**values: Any) -> None:
    """Turn UniProtKB files into protein-text pairs.

    INPUT is a UniProtKB flat file (.dat), XML (.xml) or JSON of the REST service (.json, .jsonl), a table with the
    columns of the website's exports (.tsv, .csv), a FASTA file with UniProt headers, or ProtAnno's published JSON lines
    (.jsonl), plain or gzip: a path, a quoted glob or an fsspec URL. Its content decides the format where that
    is certain, otherwise its ending. Unusable rows are listed in quarantine.jsonl, with the reason.

    After an interruption, give the same command again, and it goes on where it was.
    """
    end_with_ray()
    run_curate(with_paths(configured(CurateConfig, values), resolve_input, resolve_output))


def run_curate(config: CurateConfig) -> None:
    """Curate, here or on Ray, and say what came of it; of a config with absolute paths."""
    start = time.monotonic()
    num_bytes = sum(map(files.size, config.inputs))
    manifest = curate(config, suited_run(num_bytes, what="curate of large files"))
    counts = manifest["counts"]
    rows = ", ".join(f"{manifest['splits'][split]:,} {split}" for split in SPLITS)
    echo(
        f"curate: {counts['read']:,} rows read, {counts['kept']:,} pairs kept ({rows}), "
        f"{counts['quarantined']:,} quarantined, {time.monotonic() - start:.1f} s → {config.output}"
    )
    if counts["without_text"]:
        echo(
            f"curate: {counts['without_text']:,} of {counts['kept']:,} pairs have no text: no name, function, location "
            "or similarity",
            err=True,
        )
    if changes := manifest.get("changes"):
        echo(
            f"curate: since {changes['previous']} {changes['added']:,} added, {changes['changed']:,} changed "
            f"({changes['sequence_changed']:,} in sequence, {changes['text_changed']:,} in text), "
            f"{changes['removed']:,} removed, {changes['unchanged']:,} as before"
        )
