"""``protclip embed``: proteins or texts into a folder of embeddings, in this process or on Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from protclip.commands.options import config_options
from protclip.embeddings.embed import embed_resolved
from protclip.embeddings.estimate import estimate
from protclip.embeddings.job import resolve
from protclip.embeddings.settings import EmbedConfig
from protclip.extras import require
from protclip.fields import configured
from protclip.terminal import echo
from protclip.units import Run
from ray_jobs.cluster import end_with_ray, resolve_input, resolve_output
from ray_jobs.pipelines import OnRay, suited_run


@click.command()
@config_options(EmbedConfig, argument="inputs", metavar="INPUT...")
@click.option("--dry-run", is_flag=True, help="Print how much there is to do and how long it takes; write nothing.")
def main(*, dry_run: bool, **values: Any) -> None:
    """Embed proteins or texts: vectors of unit length, as parquet keyed by accession.

    INPUT is a folder of pairs; or FASTA files with headers of any kind (.fasta, .fa, .faa), UniProtKB files (.dat,
    .xml, .json, .tsv, .csv), parquet files or a folder of them, or text files with one text a line (.txt), keyed
    line-1, line-2 and so on. Files are plain or gzip: paths, quoted globs or fsspec URLs; their content decides the
    format where that is certain. Unusable rows are listed in quarantine.jsonl, with the reason. The column "long" says
    how a protein longer than the model sees was read.

    After an interruption, give the same command again, and it goes on where it was.

    \b
        protclip embed my.fasta --checkpoint runs/tiny/best --output my-embeddings
    """
    end_with_ray()
    run_embed(configured(EmbedConfig, values), dry_run=dry_run)


def run_embed(config: EmbedConfig, *, dry_run: bool = False) -> None:
    """Embed, here or on Ray, and say what came of it."""
    started = time.monotonic()
    needs_ray = config.workers is not None or config.use_gpu
    if needs_ray:
        require("ray", extra="ray", what="embed --workers and --use-gpu")
    job = resolve(config, resolve_input, resolve_output)
    run: Run = OnRay() if needs_ray else suited_run(job.inputs.num_bytes(), what="embed of large files")
    if dry_run:
        for line in estimate(job, run):
            echo(f"embed: {line}")
        return
    manifest = embed_resolved(job, run)
    longest = job.sizes.max_protein_tokens - 2
    facts = ", ".join(_facts(manifest, longest=longest))
    seconds = time.monotonic() - started
    echo(f"embed: {facts}, {manifest['settings']['dtype']}, {seconds:.1f} s → {job.config.output}")


def _facts(manifest: Mapping[str, Any], *, longest: int) -> Iterator[str]:
    counts = manifest["counts"]
    yield f"{manifest['rows']:,} rows embedded"
    if "reused" in counts:
        yield f"{counts['reused']:,} of them as before, {counts['computed']:,} computed, {counts['dropped']:,} dropped"
    yield f"{manifest['quarantined']:,} quarantined"
    if counts["truncated"]:
        yield f"{counts['truncated']:,} cut to {longest:,} residues"
    if counts["window_mean"]:
        yield f"{counts['window_mean']:,} as means over windows of {longest:,} residues"
    for kind, count in counts["mapped_letters"].items():
        yield f"{count:,} letters mapped ({kind})"
