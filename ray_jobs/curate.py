"""``protclip curate``: UniProtKB files into a folder of pairs, one Ray Data task for each input file and each shard."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import click

from protclip import files
from protclip.errors import DataError
from protclip.manifest import claim_folder, write_manifest
from protclip.protanno import curation
from protclip.protanno.curation import CurationConfig, ShardReport, SpillReport
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.shards import KIND, PROPERTIES
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.formats import expand_inputs, reader_of
from protclip.uniprot.xml_entries import read_xml
from ray_jobs.cluster import connect, resolve_output
from ray_jobs.pipelines import progress, run_tasks

SHARD_TEXT_BYTES = 256 << 20
"""Text that a shard should hold; finish_shard has a few times as much in memory."""

# What a run leaves in its folder; nothing else is ever removed.
OWN_FILES = ("train-*.parquet", "heldout-*.parquet", curation.QUARANTINE_FILE, curation.SPILL_FOLDER)


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--output", required=True, help="Folder of pairs to write: a path or an fsspec URL.")
@click.option(
    "--sampling",
    type=click.Choice(["property", "none"]),
    default="property",
    show_default=True,
    help="property: of unreviewed entries keep the well-described ones by chance, as the paper does; none: keep all.",
)
@click.option("--seed", default=0, show_default=True, help="Of the sampling, the order and the held-out split.")
@click.option(
    "--heldout-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of the sequences that are held out.",
)
@click.option("--num-shards", type=click.IntRange(1, 99_999), help="Default: about 256 MB of text each.")
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
@click.option("--overwrite", is_flag=True, help="Replace a finished folder of pairs.")
def main(
    *,
    inputs: tuple[str, ...],
    output: str,
    sampling: Literal["property", "none"],
    seed: int,
    heldout_fraction: float,
    num_shards: int | None,
    row_group_rows: int,
    max_bad_fraction: float,
    overwrite: bool,
) -> None:
    """UniProtKB files into ProtAnno pairs.

    INPUT is a UniProtKB flat file (.dat), XML (.xml), a TSV or CSV export of the website, a FASTA file with UniProt
    headers, or ProtAnno's published JSON lines (.jsonl), plain or gzip: a path, a quoted glob or an fsspec URL.
    Unusable rows are listed in quarantine.jsonl, with the reason.
    """
    start = time.monotonic()
    folder = resolve_output(output)
    paths = expand_inputs(inputs)
    config = CurationConfig(
        seed=seed,
        sampling=SamplingConfig(mode=sampling),
        heldout_fraction=heldout_fraction,
        num_shards=num_shards or default_num_shards(paths),
        row_group_rows=row_group_rows,
    )
    claim_folder(folder, OWN_FILES, overwrite=overwrite)
    connect()
    manifest = curate(paths, folder, config, max_bad_fraction=max_bad_fraction)
    counts = manifest["counts"]
    click.echo(
        f"curate: {counts['read']:,} rows read, {manifest['splits']['train']:,} train and "
        f"{manifest['splits']['heldout']:,} held-out pairs kept, {counts['quarantined']:,} quarantined, "
        f"{time.monotonic() - start:.1f} s → {folder}"
    )


def curate(paths: Sequence[str], folder: str, config: CurationConfig, *, max_bad_fraction: float) -> dict[str, Any]:
    """Run both steps of curation on the connected Ray and commit the folder.

    Returns:
        The manifest.

    Raises:
        DataError: if an input cannot be read, too many rows are bad, or no pair is kept.
    """
    spill_items = [{"path": path, "ordinal": i} for i, path in enumerate(paths)]
    reports = run_tasks(partial(_spill, folder=folder, config=config), spill_items)
    spilled = [SpillReport(**fields) for fields in progress(reports, title="reading", unit="file", total=len(paths))]
    spilled.sort(key=lambda report: report.path)
    _gather_quarantine(folder, len(paths))
    _check_quality(spilled, folder, max_bad_fraction)

    shards: dict[int, list[str]] = {}
    for report in spilled:
        for shard, path in report.spills.items():
            shards.setdefault(int(shard), []).append(path)
    shard_items = [{"shard": shard, "spills": spills} for shard, spills in sorted(shards.items())]
    reports = run_tasks(partial(_finish, folder=folder, config=config), shard_items)
    finished = [ShardReport(**fields) for fields in progress(reports, title="writing", unit="shard", total=len(shards))]
    files.remove(files.join(folder, curation.SPILL_FOLDER))
    names = [name for report in finished for name in report.files]
    return write_manifest(folder, KIND, [*names, curation.QUARANTINE_FILE], **_manifest_body(spilled, finished, config))


def default_num_shards(paths: Sequence[str]) -> int:
    """So many that a shard holds about SHARD_TEXT_BYTES.

    A compressed file is taken for four times its size, and a fifth of a flat file or XML for text that is used.
    """
    estimate = 0.0
    for path in paths:
        size = files.size(path) * (4 if path.lower().endswith(".gz") else 1)
        estimate += size / (5 if reader_of(path) in (read_flat_file, read_xml) else 1)
    return max(1, math.ceil(estimate / SHARD_TEXT_BYTES))


def _spill(item: Mapping[str, Any], *, folder: str, config: CurationConfig) -> dict[str, Any]:
    return _fields(curation.spill_input(item["path"], folder, item["ordinal"], config))


def _finish(item: Mapping[str, Any], *, folder: str, config: CurationConfig) -> dict[str, Any]:
    return _fields(curation.finish_shard(item["shard"], folder, item["spills"], config))


def _fields(report: SpillReport | ShardReport) -> dict[str, Any]:
    # Not asdict: it copies a Counter into one that counts its own items.
    return {name: getattr(report, name) for name in report.__slots__}


def _gather_quarantine(folder: str, num_inputs: int) -> None:
    with files.atomic_write(files.join(folder, curation.QUARANTINE_FILE)) as target:
        for i in range(num_inputs):
            part = files.join(folder, curation.SPILL_FOLDER, f"{i:06d}", curation.QUARANTINE_FILE)
            with files.open_read(part) as source:
                while block := source.read(1 << 20):
                    target.write(block)


def _check_quality(reports: Sequence[SpillReport], folder: str, max_bad_fraction: float) -> None:
    num_read = sum(report.num_read for report in reports)
    quarantined = _total(report.quarantined for report in reports)
    num_bad = quarantined.total()
    if num_bad > max_bad_fraction * num_read:
        raise DataError(
            f"{num_bad:,} of {num_read:,} rows cannot be used ({_say(quarantined)}), more than max_bad_fraction="
            f"{max_bad_fraction}; each is listed in {files.join(folder, curation.QUARANTINE_FILE)}. Mend the input, or "
            "raise --max-bad-fraction."
        )
    if not any(report.num_kept for report in reports):
        reasons = quarantined + _total(report.not_sampled for report in reports)
        raise DataError(
            f"no pair is kept of {num_read:,} rows ({_say(reasons)}); --sampling none keeps unreviewed entries too."
        )


def _manifest_body(
    spilled: Sequence[SpillReport], finished: Sequence[ShardReport], config: CurationConfig
) -> dict[str, Any]:
    rows = _total(report.num_rows for report in finished)
    quarantined = _total(report.quarantined for report in spilled)
    return {
        "splits": {split: rows[split] for split in curation.SPLITS},
        "settings": curation.settings(config),
        "inputs": [
            {"path": report.path, "bytes": files.size(report.path), "rows": report.num_read, "kept": report.num_kept}
            for report in spilled
        ],
        "counts": {
            "read": sum(report.num_read for report in spilled),
            "kept": rows.total(),
            "quarantined": quarantined.total(),
            "quarantined_by_reason": dict(quarantined),
            "not_sampled_by_reason": dict(_total(report.not_sampled for report in spilled)),
            "repeated_accession": sum(report.num_repeated for report in finished),
        },
        # Shares as the paper's Figure 2 and Table 1 give them; before sampling a repeated accession counts each time.
        "composition": {
            "before_sampling": {
                "coverage": _coverage_shares(_total(report.coverage for report in spilled)),
                "existence": _shares(_total(report.existence for report in spilled)),
            },
            "after_sampling": {
                "coverage": _coverage_shares(_total(report.coverage for report in finished)),
                "existence": _shares(_total(report.existence for report in finished)),
            },
        },
    }


def _total(counters: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: round(counts[name] / counts.total(), 6) for name in sorted(counts)}


def _coverage_shares(counts: Counter[str]) -> dict[str, float]:
    return {f"{name}/{len(PROPERTIES)}": share for name, share in _shares(counts).items()}


def _say(counts: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count:,}" for reason, count in counts.most_common()) or "no rows at all"
