"""``protclip curate``: UniProtKB files into a folder of pairs; Ray Data tasks for each block read and each shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import click
from click.core import ParameterSource

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.fields import check_number
from protclip.manifest import FILE_NAME, read_manifest, resume_folder
from protclip.protanno import curation, splits
from protclip.protanno.changes import CHANGES_FILE
from protclip.protanno.curation import QUARANTINE_FILE, CurationConfig
from protclip.protanno.sampling import Dataset, SamplingConfig
from protclip.protanno.shards import KIND, SPLITS
from protclip.protanno.splits import SplitConfig
from protclip.terminal import echo
from protclip.uniprot.formats import describe_unused_columns, expand_inputs
from protclip.version import __version__
from ray_jobs.cluster import connect, resolve_input, resolve_output
from ray_jobs.curate_job import Curation

# What a run leaves in its folder; nothing else is ever removed.
OWN_FILES = (*(f"{split}-*.parquet" for split in SPLITS), QUARANTINE_FILE, CHANGES_FILE)

_SAMPLING_OPTIONS = ("coverage_exponent", "existence_exponent", "min_coverage", "max_existence", "draw")


class _SplitBy(click.ParamType[tuple[splits.Method, str | None], str]):
    name = "METHOD"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[splits.Method, str | None]:
        method, _, path = value.partition("=")
        if method not in splits.PARAMETERS or bool(path) != (method == "uniref50"):
            self.fail(f"{value!r} is none of minhash, uniref50=FILE, mmseqs and sequence.", param, ctx)
        return method, path or None


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--output", required=True, help="Folder of pairs to write: a path or an fsspec URL.")
@click.option(
    "--dataset",
    type=click.Choice(["S", "D", "all"]),
    default="D",
    show_default=True,
    help="S: reviewed entries (ProtAnno-S). D: also unreviewed entries, each kept with probability R^a / C^b, where R "
    "is the share of the four properties that it has and C its existence level (ProtAnno-D). all: every entry. "
    "Entries that do not say whether they are reviewed are kept.",
)
@click.option("--coverage-exponent", default=0.5, show_default=True, help="The exponent a of dataset D.")
@click.option("--existence-exponent", default=3.0, show_default=True, help="The exponent b of dataset D.")
@click.option(
    "--min-coverage", type=click.FloatRange(0, 1), default=0.75, show_default=True, help="Smallest R in dataset D."
)
@click.option(
    "--max-existence", type=click.IntRange(1, 5), default=3, show_default=True, help="Largest C in dataset D."
)
@click.option(
    "--draw",
    type=click.Choice(["once", "each-epoch"]),
    default="once",
    show_default=True,
    help="For dataset D. once: draw the entries now. each-epoch: keep all candidates, and let each epoch of a training "
    "draw its own; validation and test pairs are drawn once.",
)
@click.option("--deduplicate", is_flag=True, help="Keep one entry for each sequence: the best described one.")
@click.option(
    "--split-by",
    type=_SplitBy(),
    default="minhash",
    show_default=True,
    help="How to find related proteins, which stay in one split. minhash: shared k-mers. uniref50=FILE: the clusters "
    "of a TSV of accession and cluster, or of UniProt's idmapping.dat or idmapping_selected.tab. mmseqs: the program "
    "MMseqs2, at 50 % identity. sequence: only equal sequences, for trials.",
)
@click.option(
    "--valid-fraction",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of the rows for valid.",
)
@click.option(
    "--test-fraction", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of the rows for test."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the sampling, the order and the splits.")
@click.option(
    "--shard-mb",
    type=click.FloatRange(0, min_open=True),
    default=256.0,
    show_default=True,
    help="Text in each shard, in millions of characters.",
)
@click.option(
    "--row-group-rows",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Rows of a parquet row group, the unit that training reads.",
)
@click.option(
    "--max-bad-fraction",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Stop if a larger share of the rows is unusable.",
)
@click.option(
    "--max-textless-fraction",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Stop if a larger share of the pairs has no text: no name, function, location or similarity.",
)
@click.option(
    "--previous",
    metavar="PAIRS",
    help="The pairs of the previous release: changes.parquet then lists added, changed and removed entries.",
)
@click.option("--overwrite", is_flag=True, help="Replace a finished folder of pairs, or start an unfinished one again.")
@click.pass_context
def main(
    context: click.Context,
    *,
    inputs: tuple[str, ...],
    output: str,
    dataset: Dataset,
    coverage_exponent: float,
    existence_exponent: float,
    min_coverage: float,
    max_existence: int,
    draw: Literal["once", "each-epoch"],
    deduplicate: bool,
    split_by: tuple[splits.Method, str | None],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    shard_mb: float,
    row_group_rows: int,
    max_bad_fraction: float,
    max_textless_fraction: float,
    previous: str | None,
    overwrite: bool,
) -> None:
    """Turn UniProtKB files into protein-text pairs.

    INPUT is a UniProtKB flat file (.dat), XML (.xml) or JSON of the REST service (.json, .jsonl), a table with the
    columns of the website's exports (.tsv, .csv), a FASTA file with UniProt headers, or ProtAnno's published JSON lines
    (.jsonl), plain or gzip: a path, a quoted glob or an fsspec URL. Its content decides the format where that
    is certain, otherwise its ending. Unusable rows are listed in quarantine.jsonl, with the reason.

    After an interruption, give the same command again, and it goes on where it was.
    """
    start = time.monotonic()
    if dataset != "D":
        for name in _SAMPLING_OPTIONS:
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise ConfigError(f"--{name.replace('_', '-')} is of --dataset D, not of {dataset}; leave one out.")
    check_number("max_bad_fraction", max_bad_fraction, at_least=0, at_most=1)
    check_number("max_textless_fraction", max_textless_fraction, at_least=0, at_most=1)
    method, clusters = split_by
    if method == "mmseqs":
        splits.require_mmseqs()
    clusters = resolve_input(clusters) if clusters else None
    if clusters is not None:
        splits.check_clusters(clusters)
    folder = resolve_output(output)
    paths = expand_inputs(map(resolve_input, inputs))
    for line in describe_unused_columns(paths):
        echo(f"curate: {line}", err=True)
    config = CurationConfig(
        seed=seed,
        sampling=SamplingConfig(
            dataset=dataset,
            coverage_exponent=coverage_exponent,
            existence_exponent=existence_exponent,
            min_coverage=min_coverage,
            max_existence=max_existence,
            draw=draw,
        ),
        deduplicate=deduplicate,
        split=SplitConfig(
            method=method,
            uniref50=clusters,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        ),
        shard_mb=shard_mb,
        row_group_rows=row_group_rows,
    )
    previous = resolve_input(previous) if previous else None
    if previous is not None:
        if previous == folder:
            raise ConfigError(
                f"--previous {previous} is the output itself; write the new pairs to a folder of their own."
            )
        read_manifest(previous, KIND)
    work = resume_folder(folder, OWN_FILES, claim(paths, config, previous), overwrite=overwrite)
    connect()
    manifest = Curation(paths, folder, work, config, previous).run(
        max_bad_fraction=max_bad_fraction, max_textless_fraction=max_textless_fraction
    )
    counts = manifest["counts"]
    rows = ", ".join(f"{manifest['splits'][split]:,} {split}" for split in SPLITS)
    echo(
        f"curate: {counts['read']:,} rows read, {counts['kept']:,} pairs kept ({rows}), "
        f"{counts['quarantined']:,} quarantined, {time.monotonic() - start:.1f} s → {folder}"
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


def claim(paths: Sequence[str], config: CurationConfig, previous: str | None = None) -> dict[str, Any]:
    """All that decides on the outcome: software, settings and inputs."""
    read = [*paths, *([config.split.uniref50] if config.split.uniref50 else [])]
    for path in read:
        if not files.exists(path):
            raise DataError(f"{path}: does not exist.")
    return {
        "software": __version__,
        "settings": curation.settings(config),
        "inputs": {path: files.identity(path) for path in read},
        "previous": {previous: files.identity(files.join(previous, FILE_NAME))} if previous else None,
    }
