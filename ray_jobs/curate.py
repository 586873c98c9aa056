"""``protclip curate``: UniProtKB files into a folder of pairs; Ray Data tasks for each block read and each shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import click
from click.core import ParameterSource

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.manifest import FILE_NAME, finish_folder, read_manifest, resume_folder, write_manifest
from protclip.protanno import curation, merging, splits
from protclip.protanno.blocks import Block, cut_blocks
from protclip.protanno.changes import CHANGES_FILE, ChangeReport, write_changes
from protclip.protanno.curation import QUARANTINE_FILE, CurationConfig, ReadReport, total
from protclip.protanno.merging import MergeReport, ShardReport
from protclip.protanno.record import pairs_record
from protclip.protanno.sampling import Dataset, SamplingConfig, expectation
from protclip.protanno.shards import KIND, SPLITS
from protclip.protanno.splits import SplitConfig, SplitReport
from protclip.uniprot.formats import expand_inputs
from protclip.version import __version__
from ray_jobs.cluster import connect, resolve_output
from ray_jobs.pipelines import progress, run_cut, run_tasks

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
    help="S: reviewed entries (ProtAnno-S). D: also unreviewed ones, each kept by chance with p = R^a / C^b; R is the "
    "share of the four properties that are present, C the existence level (ProtAnno-D). all: every entry. "
    "Entries that do not say whether they are reviewed are kept.",
)
@click.option("--coverage-exponent", default=0.5, show_default=True, help="a of dataset D.")
@click.option("--existence-exponent", default=3.0, show_default=True, help="b of dataset D.")
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
    help="Of dataset D. once: the pairs are the drawn entries. each-epoch: they are all candidates, and each epoch of "
    "a training draws its own; validation and test pairs are drawn once.",
)
@click.option("--deduplicate", is_flag=True, help="Of entries with one sequence keep the one described best.")
@click.option(
    "--split-by",
    type=_SplitBy(),
    default="minhash",
    show_default=True,
    help="What keeps relatives in one split. minhash: shared k-mers. uniref50=FILE: the clusters of a TSV of accession "
    "and cluster, or of UniProt's idmapping.dat. mmseqs: that program, at 50 % identity. sequence: only equal "
    "sequences, for trials.",
)
@click.option(
    "--valid-fraction", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of the rows."
)
@click.option(
    "--test-fraction", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of the rows."
)
@click.option("--seed", default=0, show_default=True, help="Of the sampling, the order and the splits.")
@click.option(
    "--shard-mb",
    type=click.FloatRange(0, min_open=True),
    default=256.0,
    show_default=True,
    help="Text that a shard has, in millions of characters.",
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
    "--previous",
    metavar="PAIRS",
    help="The pairs of the release before: changes.parquet then says which entries were added, changed or removed.",
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
    previous: str | None,
    overwrite: bool,
) -> None:
    """UniProtKB files into ProtAnno pairs.

    INPUT is a UniProtKB flat file (.dat), XML (.xml), a TSV or CSV export of the website, a FASTA file with UniProt
    headers, or ProtAnno's published JSON lines (.jsonl), plain or gzip: a path, a quoted glob or an fsspec URL.
    Unusable rows are listed in quarantine.jsonl, with the reason.

    A run that was interrupted goes on where it was when the same command is given again.
    """
    start = time.monotonic()
    if dataset != "D":
        for name in _SAMPLING_OPTIONS:
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise ConfigError(f"--{name.replace('_', '-')} is of --dataset D, not of {dataset}; leave one out.")
    if valid_fraction + test_fraction >= 1:
        raise ConfigError(
            f"--valid-fraction {valid_fraction} and --test-fraction {test_fraction} leave nothing to train on."
        )
    method, clusters = split_by
    if method == "mmseqs":
        splits.require_mmseqs()
    folder = resolve_output(output)
    paths = expand_inputs(inputs)
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
            uniref50=files.absolute(clusters) if clusters else None,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        ),
        shard_mb=shard_mb,
        row_group_rows=row_group_rows,
    )
    previous = files.absolute(previous) if previous else None
    if previous is not None:
        if previous == folder:
            raise ConfigError(
                f"--previous {previous} is the output itself; write the new pairs to a folder of their own."
            )
        read_manifest(previous, KIND)
    work = resume_folder(folder, OWN_FILES, claim(paths, config, previous), overwrite=overwrite)
    connect()
    manifest = Curation(paths, folder, work, config, previous).run(max_bad_fraction=max_bad_fraction)
    counts = manifest["counts"]
    rows = ", ".join(f"{manifest['splits'][split]:,} {split}" for split in SPLITS)
    click.echo(
        f"curate: {counts['read']:,} rows read, {counts['kept']:,} pairs kept ({rows}), "
        f"{counts['quarantined']:,} quarantined, {time.monotonic() - start:.1f} s → {folder}"
    )
    if changes := manifest.get("changes"):
        click.echo(
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


class Curation:
    """One run: its units of work, each with its files and its report in the work folder.

    WORK/read/000000-000000.json …     of each block; 000000.json says how many blocks an input has
    WORK/merge/00000.json …            of each shard
    WORK/split/report.json
    WORK/finish/00000.json …           of each shard
    WORK/changes/00000.json            where there is a previous folder of pairs
    """

    def __init__(
        self, paths: Sequence[str], folder: str, work: str, config: CurationConfig, previous: str | None = None
    ) -> None:
        self.paths, self.folder, self.config, self.previous = paths, folder, config, previous
        self.read_folder, self.merge_folder, self.split_folder, self.finish_folder, self.changes_folder = (
            files.join(work, name) for name in ("read", "merge", "split", "finish", "changes")
        )

    def run(self, *, max_bad_fraction: float) -> dict[str, Any]:
        """Do what is not yet done, on the connected Ray, and commit the folder.

        Returns:
            The manifest.

        Raises:
            DataError: if an input cannot be read, too many rows are bad, or no pair is kept.
        """
        units = self.read()
        reports = [report for read in units for report in read.values()]
        self.gather_quarantine(units)
        _check_quality(reports, files.join(self.folder, QUARANTINE_FILE), max_bad_fraction)
        sampling = self.sampling(reports)
        kept = [stem for read in units for stem, report in read.items() if report.num_kept]
        num_shards = self.config.num_shards(sum(report.num_chars for report in reports))
        shards = [{"shard": shard} for shard in range(num_shards)]

        task: Any = partial(_merge, num_shards=num_shards, units=kept, folder=self.merge_folder, config=self.config)
        merged = [MergeReport(**fields) for fields in self.run_units(task, shards, self.merge_folder, "merging")]
        stems = [files.join(self.merge_folder, f"{shard:05d}") for shard in range(num_shards)]
        outputs = [files.join(self.split_folder, f"{shard:05d}.npy") for shard in range(num_shards)]
        task = partial(_split, stems=stems, outputs=outputs, folder=self.split_folder, config=self.config)
        (fields,) = self.run_units(task, [{"shard": 0}], self.split_folder, "splitting")
        split = SplitReport(**fields)
        task = partial(
            _finish,
            num_shards=num_shards,
            stems=stems,
            outputs=outputs,
            folder=self.folder,
            reports=self.finish_folder,
            config=self.config,
        )
        finished = [ShardReport(**fields) for fields in self.run_units(task, shards, self.finish_folder, "writing")]
        described = {name: entry for report in finished for name, entry in report.files.items()}
        changes = {}
        if self.previous is not None:
            task = partial(_compare, previous=self.previous, names=list(described), folder=self.folder)
            task = partial(task, reports=self.changes_folder)
            (fields,) = self.run_units(task, [{"shard": 0}], self.changes_folder, "comparing")
            described[CHANGES_FILE] = fields.pop("file")
            changes["changes"] = {"previous": self.previous, **fields}
        manifest = write_manifest(
            self.folder,
            KIND,
            [QUARANTINE_FILE],
            described=described,
            **changes,
            **pairs_record(self.paths, units, merged, split, finished, self.config),
            sampling=sampling,
        )
        finish_folder(self.folder)
        return manifest

    def read(self) -> list[dict[str, ReadReport]]:
        """The report of each block by its stem, for each input."""
        done = set(files.list_folder(self.read_folder))
        items = []
        for i, path in enumerate(self.paths):
            blocks = [int(name[7:13]) for name in done if name.startswith(f"{i:06d}-") and name.endswith(".json")]
            if f"{i:06d}.json" not in done or len(blocks) < self.num_blocks(i):
                items.append({"path": path, "input": i, "done": blocks})
        reports = run_cut(
            partial(_cut, folder=self.read_folder), partial(_read, folder=self.read_folder, config=self.config), items
        )
        for _ in progress(reports, title="reading", unit="block", total=None):
            pass
        units = []
        for i in range(len(self.paths)):
            stems = [files.join(self.read_folder, f"{i:06d}-{j:06d}") for j in range(self.num_blocks(i))]
            units.append({stem: ReadReport(**files.read_json(f"{stem}.json")) for stem in stems})
        return units

    def num_blocks(self, number: int) -> int:
        """How many blocks an input has that was cut to its end."""
        return int(files.read_json(files.join(self.read_folder, f"{number:06d}.json"))["blocks"])

    def run_units(
        self, task: Any, items: Sequence[Mapping[str, Any]], folder: str, title: str
    ) -> Iterator[dict[str, Any]]:
        """Run the units that have no report yet; gives the reports of all, in order."""
        done = set(files.list_folder(folder))
        missing = [item for item in items if _report_name(item) not in done]
        for _ in progress(run_tasks(task, missing), title=title, unit="unit", total=len(missing)):
            pass
        for item in items:
            fields: dict[str, Any] = files.read_json(files.join(folder, _report_name(item)))
            yield fields

    def gather_quarantine(self, units: Sequence[Mapping[str, ReadReport]]) -> None:
        """What could not be used, in the order of the inputs."""
        with files.atomic_write(files.join(self.folder, QUARANTINE_FILE)) as target:
            for stem, report in (pair for read in units for pair in read.items()):
                if report.quarantined:
                    with files.open_read(f"{stem}.jsonl") as source:
                        while block := source.read(1 << 20):
                            target.write(block)

    def sampling(self, reports: Sequence[ReadReport]) -> dict[str, Any] | None:
        """How many unreviewed entries the sampling kept, beside what was to be expected; None without sampling."""
        if self.config.sampling.dataset != "D":
            return None
        candidates, drawn = (total([getattr(report, name) for report in reports]) for name in ("candidates", "drawn"))
        expected, deviation = expectation(curation.sampling_groups(candidates), self.config.sampling)
        if self.config.sampling.draw == "once":
            click.echo(
                f"curate: of {candidates.total():,} unreviewed candidates {drawn.total():,} were drawn; expected are "
                f"{expected:,.0f} ± {deviation:,.0f}"
            )
        else:
            click.echo(
                f"curate: {candidates.total():,} unreviewed candidates, all kept; an epoch over all of them draws "
                f"{expected:,.0f} ± {deviation:,.0f}"
            )
        return {
            "candidates": candidates.total(),
            "expected": round(expected, 3),
            "standard_deviation": round(deviation, 3),
            "drawn": drawn.total(),
            # By properties present / existence level.
            "candidates_by_cell": dict(candidates),
            "drawn_by_cell": dict(drawn),
        }


def _cut(item: Mapping[str, Any], *, folder: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    number, done = 0, set(item["done"])
    for block in cut_blocks(item["path"]):
        number += 1
        if block.ordinal not in done:
            place = {"path": block.path, "ordinal": block.ordinal, "line": block.line, "whole": block.data is None}
            yield {**place, "stem": f"{item['input']:06d}-{block.ordinal:06d}"}, block.data or b""
    files.write_json(files.join(folder, f"{item['input']:06d}.json"), {"blocks": number})


def _read(item: Mapping[str, Any], data: bytes, *, folder: str, config: CurationConfig) -> dict[str, Any]:
    stem = files.join(folder, item["stem"])
    data_or_none = None if item["whole"] else data
    block = Block(path=item["path"], ordinal=item["ordinal"], line=item["line"], data=data_or_none)
    return _commit(f"{stem}.json", curation.read_unit(block, stem, config))


def _merge(
    item: Mapping[str, Any], *, num_shards: int, units: Sequence[str], folder: str, config: CurationConfig
) -> dict[str, Any]:
    stem = files.join(folder, f"{item['shard']:05d}")
    paths = [f"{unit}.parquet" for unit in units]
    return _commit(f"{stem}.json", merging.merge_shard(item["shard"], num_shards, paths, stem, config))


def _split(
    item: Mapping[str, Any], *, stems: Sequence[str], outputs: Sequence[str], folder: str, config: CurationConfig
) -> dict[str, Any]:
    report = splits.split_rows(stems, outputs, seed=config.seed, deduplicate=config.deduplicate, config=config.split)
    return _commit(files.join(folder, _report_name(item)), report)


def _finish(
    item: Mapping[str, Any],
    *,
    num_shards: int,
    stems: Sequence[str],
    outputs: Sequence[str],
    folder: str,
    reports: str,
    config: CurationConfig,
) -> dict[str, Any]:
    shard = item["shard"]
    report = merging.finish_shard(shard, num_shards, f"{stems[shard]}.parquet", outputs[shard], folder, config)
    return _commit(files.join(reports, _report_name(item)), report)


def _compare(
    _item: Mapping[str, Any], *, previous: str, names: Sequence[str], folder: str, reports: str
) -> dict[str, Any]:
    report = write_changes(previous, [files.join(folder, name) for name in names], folder)
    return _commit(files.join(reports, _report_name({"shard": 0})), report)


def _report_name(item: Mapping[str, Any]) -> str:
    return f"{item['shard']:05d}.json"


def _commit(path: str, report: ReadReport | MergeReport | SplitReport | ShardReport | ChangeReport) -> dict[str, Any]:
    """Write a unit's report, the last of its files: from then on it is done."""
    # Not asdict: it copies a Counter into one that counts its own items.
    files.write_json(path, {name: getattr(report, name) for name in report.__slots__})
    return {}


def _check_quality(reports: Sequence[ReadReport], quarantine: str, max_bad_fraction: float) -> None:
    num_read = sum(report.num_read for report in reports)
    quarantined = total([report.quarantined for report in reports])
    num_bad = quarantined.total()
    if num_bad > max_bad_fraction * num_read:
        raise DataError(
            f"{num_bad:,} of {num_read:,} rows cannot be used ({_say(quarantined)}), more than max_bad_fraction="
            f"{max_bad_fraction}; each is listed in {quarantine}. Mend the input, or raise --max-bad-fraction."
        )
    if not any(report.num_kept for report in reports):
        reasons = quarantined + total([report.not_sampled for report in reports])
        raise DataError(
            f"no pair is kept of {num_read:,} rows ({_say(reasons)}); --dataset all keeps unreviewed entries too."
        )


def _say(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason}: {count:,}" for reason, count in found) or "no rows at all"
