"""The stage ``curate``: UniProtKB files into a folder of pairs, in units of work, and then the manifest.

WORK/read/000000-000000.json …     of each block of an input; 000000.json says how many blocks the input has
WORK/merge/00000.json …            of each shard
WORK/split/00000.json
WORK/finish/00000.json …           of each shard
WORK/changes/00000.json            where there is a previous folder of pairs
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypedDict

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.fields import check_number, check_types
from protclip.manifest import FILE_NAME, finish_folder, resume_folder, write_manifest
from protclip.occupied import occupied
from protclip.protanno import merging, reading, splits
from protclip.protanno.blocks import Block, cut_blocks
from protclip.protanno.changes import CHANGES_FILE, ChangeReport, write_changes
from protclip.protanno.merging import MergeReport, ShardReport
from protclip.protanno.reading import QUARANTINE_FILE, CurationConfig, ReadReport
from protclip.protanno.record import pairs_record
from protclip.protanno.sampling import expectation
from protclip.protanno.shards import KIND, SPLITS, read_pairs
from protclip.protanno.splits import SplitReport
from protclip.terminal import echo
from protclip.uniprot.entry import BadEntry
from protclip.uniprot.formats import describe_unused_columns, expand_inputs
from protclip.uniprot.residues import Nucleotides
from protclip.units import (
    InProcess,
    Item,
    Report,
    Run,
    Unit,
    Work,
    do_units,
    finished_units,
    progress,
    read_reports,
    run_units,
    total,
)
from protclip.version import __version__

# What a run leaves in its folder; nothing else is ever removed.
OWN_FILES = (*(f"{split}-*.parquet" for split in SPLITS), QUARANTINE_FILE, CHANGES_FILE)


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateConfig:
    """Turn UniProtKB files into protein-text pairs."""

    inputs: tuple[str, ...]
    """UniProtKB files in any of the formats of docs/data.md: paths, globs or fsspec URLs."""
    output: str
    """Folder of pairs to write: a path or an fsspec URL."""
    curation: CurationConfig = field(default_factory=CurationConfig)
    """What decides on the rows."""
    max_bad_fraction: float = 0.1
    """Stop if a larger share of the rows is unusable."""
    max_textless_fraction: float = 0.1
    """Stop if a larger share of the pairs has no text: no name, function, location or similarity."""
    previous: str | None = None
    """The pairs of the previous release: changes.parquet then lists added, changed and removed entries."""
    overwrite: bool = False
    """Replace a finished folder of pairs, or start an unfinished one again."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("max_bad_fraction", self.max_bad_fraction, at_least=0, at_most=1)
        check_number("max_textless_fraction", self.max_textless_fraction, at_least=0, at_most=1)


def curate(config: CurateConfig, run: Run | None = None) -> dict[str, Any]:
    """Make a folder of pairs; a run that was killed goes on where it was.

    Args:
        config: what is read, how, and where it goes.
        run: where units are done; None for this process.

    Returns:
        The manifest.

    Raises:
        ConfigError: if it cannot be written there, or the program mmseqs is needed and missing.
        DataError: if an input cannot be read, too many rows are bad or without any text, or no pair is kept.
    """
    config = with_paths(config)
    split = config.curation.split
    if split.method == "mmseqs":
        splits.require_mmseqs()
    if split.uniref50 is not None:
        splits.check_clusters(split.uniref50)
    for line in describe_unused_columns(config.inputs):
        echo(f"curate: {line}", err=True)
    if config.previous is not None:
        if config.previous == config.output:
            raise ConfigError(
                f"--previous {config.previous} is the output itself; write the new pairs to a folder of their own."
            )
        read_pairs(config.previous)
    with occupied(config.output):
        work = resume_folder(config.output, OWN_FILES, claim(config), overwrite=config.overwrite)
        return _Curation(config, work, run or InProcess()).run()


def with_paths(
    config: CurateConfig,
    of_input: Callable[[str], str] = files.absolute,
    of_output: Callable[[str], str] = files.absolute,
) -> CurateConfig:
    """The same with other paths, by default absolute ones, and the files that globs mean.

    Raises:
        DataError: if an input is not there, or of no known kind.
    """
    split, previous = config.curation.split, config.previous
    if split.uniref50 is not None:
        split = replace(split, split_by=f"uniref50={of_input(split.uniref50)}")
    return replace(
        config,
        inputs=tuple(expand_inputs(map(of_input, config.inputs))),
        output=of_output(config.output),
        curation=replace(config.curation, split=split),
        previous=None if previous is None else of_input(previous),
    )


def claim(config: CurateConfig) -> dict[str, Any]:
    """All that decides on the outcome: software, settings and inputs."""
    clusters, previous = config.curation.split.uniref50, config.previous
    read = [*config.inputs, *([clusters] if clusters else [])]
    for path in read:
        if not files.exists(path):
            raise DataError(f"{path}: does not exist.")
    return {
        "software": __version__,
        "settings": reading.settings(config.curation),
        "inputs": {path: files.identity(path) for path in read},
        "previous": {previous: files.identity(files.join(previous, FILE_NAME))} if previous else None,
    }


class _FileItem(TypedDict):
    """An input, which is cut into blocks."""

    path: str
    input: int
    """Its number."""


class _ShardItem(TypedDict):
    unit: str
    shard: int


class _Curation:
    """One run: its units, each with its files and its report in the work folder."""

    def __init__(self, config: CurateConfig, work: str, run: Run) -> None:
        self.paths, self.folder, self.curation, self.config = config.inputs, config.output, config.curation, config
        self.work, self.do = work, run

    def run(self) -> dict[str, Any]:
        """Do what is not yet done, and commit the folder; gives the manifest."""
        config, folder = self.curation, self.folder
        units = self.read()
        reports = [report for read in units for report in read.values()]
        self.gather_quarantine(units)
        _check_quality(reports, files.join(self.folder, QUARANTINE_FILE), self.config.max_bad_fraction)
        _check_texts(reports, self.config.max_textless_fraction)
        for path, read in zip(self.paths, units, strict=True):
            nucleotides = Nucleotides()
            for report in read.values():
                nucleotides.add(report.first_nucleotides, report.nucleotides)
            if nucleotides.number:
                echo(f"curate: {nucleotides.warning(path)}", err=True)
        sampling = self.sampling(reports)
        kept = [f"{stem}.parquet" for read in units for stem, report in read.items() if report.num_kept]
        num_shards = config.num_shards(sum(report.num_chars for report in reports))
        stems = [files.join(self.work, "merge", f"{shard:05d}") for shard in range(num_shards)]
        outputs = [files.join(self.work, "split", f"{shard:05d}.npy") for shard in range(num_shards)]
        given: dict[str, Any] = {"stems": stems, "config": config}
        merged = self.run_units("merge", partial(_merge, units=kept, **given), num_shards)
        (split,) = self.run_units("split", partial(_split, outputs=outputs, **given), 1)
        finish = partial(_finish, outputs=outputs, folder=folder, **given)
        finished = [ShardReport(**report) for report in self.run_units("finish", finish, num_shards)]
        described = {name: entry for report in finished for name, entry in report.files.items()}
        changes = {}
        if self.config.previous is not None:
            compare = partial(_compare, previous=self.config.previous, names=list(described), folder=folder)
            (changed,) = self.run_units("changes", compare, 1)
            described[CHANGES_FILE] = changed["file"]
            counts = {name: value for name, value in changed.items() if name != "file"}
            changes["changes"] = {"previous": self.config.previous, **counts}
        manifest = write_manifest(
            folder,
            KIND,
            [QUARANTINE_FILE],
            described=described,
            **changes,
            **pairs_record(
                self.paths, units, [MergeReport(**report) for report in merged], SplitReport(**split), finished, config
            ),
            sampling=sampling,
        )
        finish_folder(folder)
        return manifest

    def read(self) -> list[dict[str, ReadReport]]:
        """The report of each block by its stem, for each input."""
        folder = files.join(self.work, "read")
        done = finished_units(folder)
        items: list[_FileItem] = []
        for i, path in enumerate(self.paths):
            num_done = sum(name.startswith(f"{i:06d}-") for name in done)
            if f"{i:06d}" not in done or num_done < _num_blocks(folder, i):
                items.append({"path": path, "input": i})
        unit, cut = partial(_read, folder=folder, config=self.curation), partial(_cut, folder=folder, done=done)
        reading = Work(title="reading", unit=unit, cut=cut)
        for _ in progress(do_units(reading, items, folder, self.do), title="reading", total=None):
            pass
        units = []
        for i in range(len(self.paths)):
            names = [f"{i:06d}-{j:06d}" for j in range(_num_blocks(folder, i))]
            reports = read_reports(folder, names)
            units.append(
                {files.join(folder, name): ReadReport(**report) for name, report in zip(names, reports, strict=True)}
            )
        return units

    def run_units(self, kind: str, unit: Unit, number: int) -> list[Report]:
        """The reports of so many units of one kind."""
        items: list[_ShardItem] = [{"unit": f"{shard:05d}", "shard": shard} for shard in range(number)]
        return run_units(Work(title=kind, unit=unit), items, files.join(self.work, kind), self.do)

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
        if self.curation.sampling.dataset != "D":
            return None
        candidates, drawn = (total([getattr(report, name) for report in reports]) for name in ("candidates", "drawn"))
        expected, deviation = expectation(reading.sampling_groups(candidates), self.curation.sampling)
        if self.curation.sampling.draw == "once":
            echo(
                f"curate: of {candidates.total():,} unreviewed candidates {drawn.total():,} were drawn; expected are "
                f"{expected:,.0f} ± {deviation:,.0f}"
            )
        else:
            echo(
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


def _num_blocks(folder: str, number: int) -> int:
    """How many blocks an input has that was cut to its end."""
    return int(read_reports(folder, [f"{number:06d}"])[0]["blocks"])


def _cut(item: _FileItem, *, folder: str, done: frozenset[str]) -> Iterator[Item]:
    """The blocks of an input that have no report yet; at its end, how many there are in all."""
    number = 0
    for block in cut_blocks(item["path"]):
        number += 1
        name = f"{item['input']:06d}-{block.ordinal:06d}"
        if name not in done:
            yield {"unit": name, **{slot: getattr(block, slot) for slot in Block.__slots__}}
    files.write_json(files.join(folder, f"{item['input']:06d}.json"), {"blocks": number})


def _read(item: Item, *, folder: str, config: CurationConfig) -> Report:
    block = Block(**{slot: item[slot] for slot in Block.__slots__})
    return _fields(reading.read_unit(block, files.join(folder, item["unit"]), config))


def _merge(item: _ShardItem, *, units: Sequence[str], stems: Sequence[str], config: CurationConfig) -> Report:
    shard = item["shard"]
    return _fields(merging.merge_shard(shard, len(stems), units, stems[shard], config))


def _split(_: Item, *, stems: Sequence[str], outputs: Sequence[str], config: CurationConfig) -> Report:
    report = splits.split_rows(stems, outputs, seed=config.seed, deduplicate=config.deduplicate, config=config.split)
    return _fields(report)


def _finish(
    item: _ShardItem, *, stems: Sequence[str], outputs: Sequence[str], folder: str, config: CurationConfig
) -> Report:
    shard = item["shard"]
    report = merging.finish_shard(shard, len(stems), f"{stems[shard]}.parquet", outputs[shard], folder, config)
    return _fields(report)


def _compare(_: Item, *, previous: str, names: Sequence[str], folder: str) -> Report:
    return _fields(write_changes(previous, [files.join(folder, name) for name in names], folder))


def _fields(report: ReadReport | MergeReport | SplitReport | ShardReport | ChangeReport) -> Report:
    # Not asdict: it copies a Counter into one that counts its own items.
    return {name: getattr(report, name) for name in report.__slots__}


def _check_quality(reports: Sequence[ReadReport], quarantine: str, max_bad_fraction: float) -> None:
    num_read = sum(report.num_read for report in reports)
    quarantined = total([report.quarantined for report in reports])
    num_bad = quarantined.total()
    if num_bad > max_bad_fraction * num_read:
        with files.open_read(quarantine) as stream:
            first = BadEntry(**json.loads(stream.readline()))
        raise DataError(
            f"{num_bad:,} of {num_read:,} rows cannot be used ({_say(quarantined)}), more than max_bad_fraction="
            f"{max_bad_fraction}; each is listed in {quarantine}. The first: {first}. Mend the input, or raise "
            "--max-bad-fraction."
        )
    if not any(report.num_kept for report in reports):
        reasons = quarantined + total([report.not_sampled for report in reports])
        raise DataError(
            f"no pair is kept of {num_read:,} rows ({_say(reasons)}); --dataset all keeps unreviewed entries too."
        )


def _check_texts(reports: Sequence[ReadReport], max_textless_fraction: float) -> None:
    num_kept, num_without = (
        sum(getattr(report, name) for report in reports) for name in ("num_kept", "num_without_text")
    )
    if num_without > max_textless_fraction * num_kept:
        raise DataError(
            f"{num_without:,} of {num_kept:,} pairs have no text: no name, function, location or similarity, more than "
            f"max_textless_fraction={max_textless_fraction}. Are these columns missing, or called otherwise? Export "
            "Protein names, Function [CC], Subcellular location [CC], Sequence similarities, or raise "
            "--max-textless-fraction."
        )


def _say(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason}: {count:,}" for reason, count in found) or "no rows at all"
