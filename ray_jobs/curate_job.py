"""One run of ``protclip curate``: units of work that are committed one by one, and then the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from protclip import files
from protclip.errors import DataError
from protclip.manifest import finish_folder, write_manifest
from protclip.protanno import curation, merging, splits
from protclip.protanno.blocks import Block, cut_blocks
from protclip.protanno.changes import CHANGES_FILE, ChangeReport, write_changes
from protclip.protanno.curation import QUARANTINE_FILE, CurationConfig, ReadReport, total
from protclip.protanno.merging import MergeReport, ShardReport
from protclip.protanno.record import pairs_record
from protclip.protanno.sampling import expectation
from protclip.protanno.shards import KIND
from protclip.protanno.splits import SplitReport
from protclip.terminal import echo
from protclip.uniprot.entry import BadEntry
from protclip.uniprot.residues import Nucleotides
from ray_jobs.pipelines import progress, run_cut, run_tasks


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

    def run(self, *, max_bad_fraction: float, max_textless_fraction: float) -> dict[str, Any]:
        """Do what is not yet done, on the connected Ray, and commit the folder.

        Returns:
            The manifest.

        Raises:
            DataError: if an input cannot be read, too many rows are bad or without any text, or no pair is kept.
        """
        units = self.read()
        reports = [report for read in units for report in read.values()]
        self.gather_quarantine(units)
        _check_quality(reports, files.join(self.folder, QUARANTINE_FILE), max_bad_fraction)
        _check_texts(reports, max_textless_fraction)
        for path, read in zip(self.paths, units, strict=True):
            nucleotides = Nucleotides()
            for report in read.values():
                nucleotides.add(report.first_nucleotides, report.nucleotides)
            if nucleotides.number:
                echo(f"curate: {nucleotides.warning(path)}", err=True)
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


def _cut(item: Mapping[str, Any], *, folder: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    number, done = 0, set(item["done"])
    for block in cut_blocks(item["path"]):
        number += 1
        if block.ordinal not in done:
            place = {"path": block.path, "ending": block.ending, "ordinal": block.ordinal, "line": block.line}
            yield (
                {**place, "whole": block.data is None, "stem": f"{item['input']:06d}-{block.ordinal:06d}"},
                block.data or b"",
            )
    files.write_json(files.join(folder, f"{item['input']:06d}.json"), {"blocks": number})


def _read(item: Mapping[str, Any], data: bytes, *, folder: str, config: CurationConfig) -> dict[str, Any]:
    stem = files.join(folder, item["stem"])
    data_or_none = None if item["whole"] else data
    place = {name: item[name] for name in ("path", "ending", "ordinal", "line")}
    block = Block(**place, data=data_or_none)
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
