"""``protclip embed``: proteins or texts into a folder of embeddings, by a pool of Ray Data actors.

One part of the output is one unit of work. It is committed by its record in the work folder, which has the checksums of
its files; a run that was interrupted goes on with the parts that have none. The manifest comes last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from protclip import files
from protclip.checkpoints import checkpoint_folder, is_name
from protclip.errors import ConfigError
from protclip.index.embeddings import DTYPES, Dtype, Embeddings, read_embeddings
from protclip.index.manifest import read_checkpoint_fingerprint, read_model_sizes
from protclip.index.parts import require_h5
from protclip.index.previous import check_reusable
from protclip.manifest import FILE_NAME, read_claim, resume_folder
from protclip.terminal import echo
from protclip.uniprot.formats import describe_unused_columns
from protclip.version import __version__
from ray_jobs.cluster import connect, resolve_input, resolve_output
from ray_jobs.embed_estimate import MeasureRate, describe_work, take_sample
from ray_jobs.embed_inputs import Inputs, find_inputs, resolve_content
from ray_jobs.embed_job import QUARANTINE_FILE, EmbedJob, available
from ray_jobs.pipelines import run_actors

PART_ROWS = 4096
"""Rows of a part where CPUs embed: the unit of work, and the window that is sorted by length."""
GPU_PART_ROWS = 32_768
"""The same on GPUs: about a minute of work for ESM-2 650M, and 67 MB of 512 float32 a row."""

OWN_FILES = ("part-*.parquet", "part-*.npy", "part-*.h5", "residues-*.parquet", "residues-*.h5", QUARANTINE_FILE)


class _Workers(click.ParamType[tuple[int, int], str]):
    name = "N|MIN-MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        fewest, _, most = str(value).partition("-")
        try:
            found = int(fewest), int(most or fewest)
        except ValueError:
            found = 0, 0
        if not 1 <= found[0] <= found[1]:
            self.fail(f"{value!r} is neither a number of workers nor a range such as 1-8.", param, ctx)
        return found


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--checkpoint", required=True, help="Folder, name (such as published) or URL of the model.")
@click.option("--output", required=True, help="Folder of embeddings to write: a path or an fsspec URL.")
@click.option(
    "--content",
    type=click.Choice(["protein", "text"]),
    help="What of pairs, UniProt files or parquet files is embedded. Default: protein.",
)
@click.option("--id-column", help="Of parquet files, the key of a row. Default: accession, or id.")
@click.option("--column", "value_column", help="Of parquet files, what is embedded. Default: sequence, or text.")
@click.option(
    "--long",
    type=click.Choice(["truncate", "error", "window-mean"]),
    help="Proteins longer than the model sees: cut at the C-terminus, quarantined, or embedded as the mean over "
    "overlapping windows. Default: truncate.",
)
@click.option("--residues", is_flag=True, help="Also write the vectors of all residues, as float16.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "h5", "npy"]),
    default="parquet",
    show_default=True,
    help="Where the vectors are: in the parquet files, or beside them, in HDF5 with a dataset per accession, or in "
    "numpy's format, which can be memory-mapped.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the stored vectors.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the model's matrix products, on all workers; the index and its queries follow it. Default: that of the "
    "run that is resumed, or of --previous; else bfloat16 on GPUs and where this machine's processor has instructions "
    "for it.",
)
@click.option(
    "--deduplicate",
    is_flag=True,
    help="Compute identical sequences, or texts, once over the whole input, not only within a part; rows that repeat "
    "one come last.",
)
@click.option("--part-rows", type=click.IntRange(1), help="Rows of a part. Default: 4096; with --use-gpu 32768.")
@click.option(
    "--previous",
    metavar="EMBEDDINGS",
    help="Embeddings of the release before, by the same model and settings: a row whose accession and sequence, or "
    "text, it has takes its vector from there.",
)
@click.option(
    "--workers",
    type=_Workers(),
    help="Actors; a range lets their number follow the work. Default: 1 to one for each CPU, or GPU, of the cluster.",
)
@click.option("--use-gpu", is_flag=True, help="Give each actor a GPU.")
@click.option("--dry-run", is_flag=True, help="Say how much there is to do, and how long it takes; write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a finished folder, or start an unfinished one again.")
def main(
    *,
    inputs: tuple[str, ...],
    checkpoint: str,
    output: str,
    content: Any,
    id_column: str | None,
    value_column: str | None,
    long: Any,
    residues: bool,
    form: Any,
    precision: Any,
    dtype: Any,
    deduplicate: bool,
    part_rows: int | None,
    previous: str | None,
    workers: tuple[int, int] | None,
    use_gpu: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Proteins or texts into L2-normalised embeddings, as parquet keyed by accession.

    INPUT is a folder of pairs; or FASTA files with headers of any kind (.fasta, .fa, .faa), UniProtKB files (.dat,
    .xml, .json, .tsv, .csv), parquet files or a folder of them, or text files with a text a line (.txt), keyed line-1,
    line-2 and so on. Files are plain or gzip: paths, quoted globs or fsspec URLs; their content decides where that is
    certain. Unusable rows are listed in quarantine.jsonl, with the reason. A row's column "long" says how a protein
    longer than the model sees was read.

    A run that was interrupted goes on where it was when the same command is given again.

    \b
        protclip embed my.fasta --checkpoint runs/tiny/best --output my-embeddings
    """
    started = time.monotonic()
    from ray_jobs.stages import EmbedSettings

    found = find_inputs([resolve_input(path) for path in inputs], id_column=id_column, value_column=value_column)
    content = resolve_content(found.kind, content)
    for line in describe_unused_columns(found.paths) if found.kind == "entries" else ():
        echo(f"embed: {line}", err=True)
    # Workers look a name up on their own nodes.
    checkpoint, folder = checkpoint if is_name(checkpoint) else resolve_input(checkpoint), resolve_output(output)
    previous = resolve_input(previous) if previous else None
    before = None if previous is None else _open_previous(previous, folder)
    settings = EmbedSettings(
        content=content,
        long=_long(content, long, residues),
        device="cuda" if use_gpu else "cpu",
        dtype=dtype or _default_dtype(None if overwrite else folder, before, use_gpu),
        format=form,
        precision=precision,
        deduplicate=deduplicate,
        residues=residues,
    )
    if deduplicate and (residues or previous):
        raise ConfigError(f"--deduplicate does not go with --{'residues' if residues else 'previous'}; leave one out.")
    if form == "h5":
        require_h5()
    part_rows = part_rows or (GPU_PART_ROWS if use_gpu else PART_ROWS)
    model_folder = checkpoint_folder(checkpoint)
    fingerprint = read_checkpoint_fingerprint(model_folder, verify=True)
    if before is not None:
        _check_previous(before, fingerprint, settings)
    sizes = read_model_sizes(model_folder)
    if dry_run:
        _estimate(found, checkpoint, settings, part_rows, workers, sizes.projection_dim)
        return
    claim = {
        "software": __version__,
        "model_fingerprint": fingerprint,
        "inputs": found.identity(),
        "settings": {**asdict(settings), "part_rows": part_rows},
        "previous": {previous: files.identity(files.join(previous, FILE_NAME))} if previous else None,
    }
    with files.telling_what_cannot_be_written(folder):
        work = resume_folder(folder, [*OWN_FILES], claim, overwrite=overwrite)
    connect()
    job = EmbedJob(
        found, checkpoint, folder, work, settings, fingerprint=fingerprint, part_rows=part_rows, previous=previous
    )
    with files.telling_what_cannot_be_written(folder):
        manifest = job.run(workers, model_fingerprint=fingerprint, dimension=sizes.projection_dim)
    facts = _facts(manifest, longest=sizes.max_protein_tokens - 2)
    echo(f"embed: {', '.join(facts)}, {settings.dtype}, {time.monotonic() - started:.1f} s → {folder}")


def _estimate(
    inputs: Inputs, checkpoint: str, settings: Any, part_rows: int, workers: tuple[int, int] | None, dimension: int
) -> None:
    """Print how much there is to do; one actor embeds a sample."""
    sample = take_sample(inputs, settings.content)
    connect()
    most = (workers or available(settings.device))[1]
    num_gpus = 1.0 if settings.device == "cuda" else 0.0
    measure = partial(MeasureRate, checkpoint, settings)
    items = [{"values": sample.values}]
    (report,) = run_actors(measure, items, num_actors=(1, 1), num_cpus=1.0, num_gpus=num_gpus)
    lines = describe_work(
        sample,
        report["residues_per_s"],
        part_rows=part_rows,
        workers=most,
        dimension=dimension,
        precision=settings.precision,
        content=settings.content,
    )
    for line in lines:
        echo(f"embed: {line}")


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


def _long(content: str, asked: Any, residues: bool) -> Any:
    """The policy for long proteins, None for texts.

    Raises:
        ConfigError: if one is asked for texts, or residues of what has none.
    """
    if content == "text" and asked is not None:
        raise ConfigError(f"--long {asked} is for proteins, and texts are embedded; leave it out.")
    if residues and (content == "text" or asked == "window-mean"):
        what = "texts have none" if content == "text" else "means over windows have none"
        raise ConfigError(f"--residues: {what}; leave it out.")
    return None if content == "text" else asked or "truncate"


def _open_previous(previous: str, folder: str) -> Embeddings:
    if previous == folder:
        raise ConfigError(f"--previous {previous} is the output itself; give the new embeddings a folder of their own.")
    return read_embeddings(previous, verify=False)


def _check_previous(previous: Embeddings, fingerprint: str, settings: Any) -> None:
    """Refuse previous embeddings whose vectors cannot stand beside new ones.

    Raises:
        ConfigError: saying what differs.
    """
    if settings.residues:
        raise ConfigError("--previous has no residues to take over; leave --residues or --previous out.")
    compared = {
        name: value for name, value in asdict(settings).items() if name not in ("content", "format", "deduplicate")
    }
    check_reusable(previous, fingerprint, settings.content, compared)


def _default_dtype(folder: str | None, previous: Embeddings | None, use_gpu: bool) -> Dtype:
    """In which dtype the model computes where nobody says: as the vectors that are there, else as is fast here.

    On a processor without instructions for bfloat16 it takes several times as long as float32.

    Args:
        folder: the output, where an unfinished run may be resumed.
        previous: embeddings from which vectors are taken.
        use_gpu: whether GPUs compute.
    """
    claim = None if folder is None else read_claim(folder)
    claimed = claim.get("settings") if isinstance(claim, dict) else None  # of what other command there may be
    if isinstance(claimed, dict) and claimed.get("dtype") in DTYPES:
        return claimed["dtype"]  # type: ignore[no-any-return]
    if previous is not None:
        return previous.dtype
    from protclip.model.inference import has_fast_bfloat16

    return "bfloat16" if use_gpu or has_fast_bfloat16() else "float32"
