"""``protclip curate``: UniProtKB files into a folder of pairs, one Ray Data task for each input file and each shard."""

from __future__ import annotations

import fnmatch
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import click

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.manifest import FILE_NAME, write_manifest
from protclip.protanno import curation
from protclip.protanno.curation import CurationConfig, ShardReport, SpillReport
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.shards import KIND, PROPERTIES
from protclip.uniprot.fasta import read_fasta
from protclip.uniprot.formats import expand_inputs, reader_of
from ray_jobs.cluster import connect, resolve_output

SHARD_TEXT_BYTES = 256 << 20
"""Text that a shard should hold; finish_shard has a few times as much in memory."""

# What a run leaves in its folder; nothing else is ever removed.
OWN_FILES = (
    "train-*.parquet",
    "heldout-*.parquet",
    curation.QUARANTINE_FILE,
    curation.SPILL_FOLDER,
    FILE_NAME,
    "*.tmp",
)


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

    INPUT is a flat file (.dat) or a FASTA file with UniProt headers, plain or gzip: a path, a quoted glob or an fsspec
    URL. Unusable rows are listed in quarantine.jsonl, with the reason.
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
    prepare_folder(folder, overwrite=overwrite)
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
    spilled = [
        SpillReport(**fields)
        for fields in _run(partial(_spill, folder=folder, config=config), spill_items, title="reading")
    ]
    spilled.sort(key=lambda report: report.path)
    _gather_quarantine(folder, len(paths))
    _check_quality(spilled, folder, max_bad_fraction)

    shards: dict[int, list[str]] = {}
    for report in spilled:
        for shard, path in report.spills.items():
            shards.setdefault(int(shard), []).append(path)
    shard_items = [{"shard": shard, "spills": spills} for shard, spills in sorted(shards.items())]
    finished = [
        ShardReport(**fields)
        for fields in _run(partial(_finish, folder=folder, config=config), shard_items, title="writing")
    ]
    files.remove(files.join(folder, curation.SPILL_FOLDER))
    names = [name for report in finished for name in report.files]
    return write_manifest(folder, KIND, [*names, curation.QUARANTINE_FILE], **_manifest_body(spilled, finished, config))


def default_num_shards(paths: Sequence[str]) -> int:
    """So many that a shard holds about SHARD_TEXT_BYTES.

    A compressed file is taken for four times its size, and a fifth of a flat file for text that is used.
    """
    estimate = 0.0
    for path in paths:
        size = files.size(path) * (4 if path.lower().endswith(".gz") else 1)
        estimate += size / (1 if reader_of(path) is read_fasta else 5)
    return max(1, math.ceil(estimate / SHARD_TEXT_BYTES))


def prepare_folder(folder: str, *, overwrite: bool) -> None:
    """Make the output folder, without the leftovers of an unfinished run.

    Raises:
        ConfigError: if it holds a finished folder of pairs and ``overwrite`` is not set, or files that no run leaves.
    """
    if files.exists(files.join(folder, FILE_NAME)) and not overwrite:
        raise ConfigError(f"output {folder} is already finished; choose another folder, or give --overwrite.")
    files.make_folder(folder)
    fs, inner = files.filesystem(folder)
    names = sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(inner, detail=False))
    foreign = [name for name in names if not any(fnmatch.fnmatchcase(name, own) for own in OWN_FILES)]
    if foreign:
        raise ConfigError(f"output {folder} holds other files ({', '.join(foreign[:3])} …); choose an empty folder.")
    for name in sorted(names, key=lambda name: name != FILE_NAME):  # the manifest first: from then on it is unfinished
        files.remove(files.join(folder, name))


def _spill(item: Mapping[str, Any], *, folder: str, config: CurationConfig) -> SpillReport:
    return curation.spill_input(item["path"], folder, item["ordinal"], config)


def _finish(item: Mapping[str, Any], *, folder: str, config: CurationConfig) -> ShardReport:
    return curation.finish_shard(item["shard"], folder, item["spills"], config)


def _run(
    task: Callable[[Mapping[str, Any]], Any], items: Sequence[Mapping[str, Any]], *, title: str
) -> Iterator[dict[str, Any]]:
    """One Ray Data task for each item; gives the reports' fields as they come.

    Raises:
        DataError: what a task raised as one.
    """
    import ray
    from tqdm import tqdm

    def run(row: dict[str, Any]) -> dict[str, Any]:
        # Reports and errors travel as JSON: Arrow would want one schema of all the counters' keys, and an exception
        # would arrive wrapped in Ray's own.
        try:
            report = task(json.loads(row["item"]))
            return {"report": json.dumps({name: getattr(report, name) for name in report.__slots__})}
        except DataError as error:
            return {"report": json.dumps({"error": str(error)})}

    rows = [{"item": json.dumps(item)} for item in items]
    if not rows:
        return
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(run, num_cpus=1)
    bar = tqdm(dataset.iter_rows(), total=len(rows), desc=title, unit="task", disable=not sys.stderr.isatty())
    for row in bar:
        fields = json.loads(row["report"])
        if "error" in fields:
            raise DataError(fields["error"])
        yield fields


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
