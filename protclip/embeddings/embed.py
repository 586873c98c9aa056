"""The stage ``embed``: proteins or texts into a folder of embeddings.

One part of the output is one unit of work; a run that was interrupted goes on with those that have no report. The
manifest comes last.

WORK/cut/00000.parquet …     blocks of the input, until their parts are committed; not of pairs
WORK/cut/00000.jsonl …       what could not be read among them
WORK/cut/repeats-00000.parquet …    rows that repeat the value of an earlier one
WORK/cut.json                once the input was cut to its end
WORK/previous/               where to find which row in the previous embeddings
WORK/parts/00000.json …      the report of each committed part
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from protclip import files
from protclip.embeddings.blocks import (
    BlockItem,
    PartReport,
    block_stem,
    file_blocks,
    pairs_blocks,
    part_name,
    parts_folder,
)
from protclip.embeddings.cutting import cut
from protclip.embeddings.job import EmbedJob, resolve
from protclip.embeddings.previous import KEYS_FILE, previous_folder, write_lookup
from protclip.embeddings.progress import show_progress
from protclip.embeddings.reading import KIND, read_embeddings
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import DataError
from protclip.manifest import FILE_NAME, finish_folder, read_manifest, resume_folder, write_manifest
from protclip.occupied import occupied
from protclip.terminal import echo
from protclip.uniprot.residues import Nucleotides
from protclip.units import (
    InProcess,
    Item,
    Report,
    Run,
    Work,
    do_units,
    finished_units,
    report_path,
    total,
    write_total,
)
from protclip.version import __version__

QUARANTINE_FILE = "quarantine.jsonl"
OWN_FILES = ("part-*.parquet", "part-*.npy", "part-*.h5", "residues-*.parquet", "residues-*.h5", QUARANTINE_FILE)


def embed(config: EmbedConfig, run: Run | None = None) -> dict[str, Any]:
    """Make a folder of embeddings; a run that was killed goes on where it was.

    Args:
        config: what is embedded, how, and where it goes.
        run: where parts are made; None for this process.

    Returns:
        The manifest.

    Raises:
        ConfigError: for settings that do not go together, or an output that cannot be written.
        DataError: if the input cannot be read to its end, or holds nothing that can be embedded.
    """
    return embed_resolved(resolve(config), run or InProcess())


def embed_resolved(job: EmbedJob, run: Run) -> dict[str, Any]:
    """``embed`` of a config whose inputs and checkpoint are looked up already."""
    config = job.config
    claim = {
        "software": __version__,
        "model_fingerprint": job.fingerprint,
        "inputs": job.inputs.identity(),
        "settings": {**config.settings(), "part_rows": job.part_rows},
        "previous": {config.previous: files.identity(files.join(config.previous, FILE_NAME))}
        if config.previous
        else None,
    }
    with occupied(config.output):
        work = resume_folder(config.output, OWN_FILES, claim, overwrite=config.overwrite)
        return _Embedding(job, work, run).run()


class _Embedding:
    """One run, and what it leaves in the work folder."""

    def __init__(self, job: EmbedJob, work: str, run: Run) -> None:
        self.job, self.config, self.inputs, self.content = job, job.config, job.inputs, job.content
        self.folder, self.work, self.do, self.parts = job.config.output, work, run, parts_folder(work)

    def run(self) -> dict[str, Any]:
        """Embed what is not yet embedded, and commit the folder; gives the manifest."""
        committed = self.committed()
        if self.config.previous is not None:
            self.prepare_previous(self.config.previous)
        blocks = None
        if self.inputs.kind == "pairs" and not self.config.deduplicate:
            blocks = pairs_blocks(self.inputs.paths[0], self.job.part_rows)
        for _ in show_progress(self.embed(blocks, committed), [*committed.values()], blocks=blocks):
            pass
        return self.commit(self.reports([block["unit"] for block in self.blocks(blocks)]))

    def reports(self, names: Iterable[str]) -> list[PartReport]:
        """The reports of parts, in order, each with the first alone of its refused rows, since all are held here."""

        def read(name: str) -> PartReport:
            report: PartReport = files.read_json(report_path(self.parts, name))
            return {**report, "refused": report["refused"][:1]}

        return files.in_threads(read, names)

    def committed(self) -> dict[str, PartReport]:
        """The reports of the parts that are there, by name."""
        there, names = set(files.list_folder(self.folder)), sorted(finished_units(self.parts))
        found = {}
        for name, report in zip(names, self.reports(names), strict=True):
            if set(report["files"]) <= there:
                found[name] = report
            else:  # somebody removed a file
                files.remove(report_path(self.parts, name))
        return found

    def prepare_previous(self, previous: str) -> None:
        """Write the lookup of the previous embeddings, where an earlier run did not."""
        folder = previous_folder(self.work)
        if KEYS_FILE not in files.list_folder(folder):
            lookup = partial(_write_lookup, previous=previous, folder=folder)
            for _ in self.do(Work(title="previous", unit=lookup), [{}]):
                pass

    def blocks(self, of_pairs: Sequence[BlockItem] | None) -> Sequence[BlockItem]:
        """The items of all parts, once the inputs are cut."""
        return of_pairs if of_pairs is not None else file_blocks(self.work) or []

    def embed(self, of_pairs: Sequence[BlockItem] | None, committed: Mapping[str, PartReport]) -> Iterator[Report]:
        """The reports of all parts that are not yet committed."""
        from protclip.embeddings.parts import EmbedBlock
        from protclip.embeddings.repeats import copy_repeats

        unit = EmbedBlock(self.config, self.work, fingerprint=self.job.fingerprint, threads=self.do.threads)
        embedding = self.job.with_model(unit)
        if of_pairs is None and not self.is_cut(committed):
            cut_inputs = partial(
                cut,
                done=frozenset(committed),
                inputs=self.inputs,
                content=self.content,
                part_rows=self.job.part_rows,
                work=self.work,
                deduplicate=self.config.deduplicate,
            )
            yield from do_units(replace(embedding, cut=cut_inputs), [{}], self.parts, self.do)
        blocks = self.blocks(of_pairs)
        write_total(self.parts, len(blocks))
        yield from do_units(embedding, [block for block in blocks if not block.get("repeats")], self.parts, self.do)
        # They are copied from the parts of all others.
        copy = partial(copy_repeats, config=self.config, work=self.work)
        repeats = [block for block in blocks if block.get("repeats")]
        yield from do_units(Work(title="copying", unit=copy), repeats, self.parts, self.do)

    def is_cut(self, committed: Mapping[str, PartReport]) -> bool:
        """Whether all blocks that are not embedded lie in the work folder: then the input is not read again."""
        there = set(files.list_folder(files.join(self.work, "cut")))
        blocks = file_blocks(self.work)
        return blocks is not None and all(
            block["unit"] in committed or block["path"].rsplit("/", 1)[-1] in there for block in blocks
        )

    def commit(self, reports: Sequence[PartReport]) -> dict[str, Any]:
        """Write the quarantine and the manifest, and remove the work folder."""
        reasons = self.gather_quarantine(reports)
        num_rows = sum(report["rows"] for report in reports)
        source = self.inputs.paths[0] if len(self.inputs.paths) == 1 else list(self.inputs.paths)
        if not num_rows:
            detail = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(reasons.items()))
            where = files.join(self.folder, QUARANTINE_FILE)
            said = f"; all {reasons.total():,} are bad ({detail}), each is listed in {where}" if reasons else ""
            raise DataError(f"{source}: holds nothing that can be embedded{said}.")
        nucleotides = _nucleotides(reports)
        for path, found in nucleotides.items():
            echo(f"embed: {found.warning(path)}", err=True)
        num_long, long = sum(report["long"] for report in reports), self.config.long
        manifest = write_manifest(
            self.folder,
            KIND,
            [QUARANTINE_FILE] if reasons else [],
            described={name: entry for report in reports for name, entry in report["files"].items()},
            content=self.content,
            rows=num_rows,
            quarantined=reasons.total(),
            source=source,
            settings={name: value for name, value in self.config.settings().items() if name != "content"},
            counts={
                "truncated": num_long if long == "truncate" else 0,
                "window_mean": num_long if long == "window-mean" else 0,
                "mapped_letters": dict(sorted((+total(report["mapped"] for report in reports)).items())),
                "quarantined_by_reason": dict(sorted(reasons.items())),
                **({"nucleotides": sum(found.number for found in nucleotides.values())} if nucleotides else {}),
                **self.reused(reports),
            },
            model_fingerprint=self.job.fingerprint,
            dimension=self.job.dimension,
        )
        finish_folder(self.folder)
        return manifest

    def reused(self, reports: Sequence[PartReport]) -> dict[str, int]:
        """Rows by where their vectors are from, and rows of the previous embeddings that are gone or changed."""
        if self.config.previous is None:
            return {}
        num_reused = sum(report["reused"] for report in reports)
        num_before = read_manifest(self.config.previous, KIND)["rows"]
        num_rows = sum(report["rows"] for report in reports)
        return {"reused": num_reused, "computed": num_rows - num_reused, "dropped": num_before - num_reused}

    def gather_quarantine(self, reports: Sequence[PartReport]) -> Counter[str]:
        """Write what could not be used, in the order of the input; counts it by reason."""
        unread = set(files.list_folder(files.join(self.work, "cut")))
        reasons: Counter[str] = Counter()
        path = files.join(self.folder, QUARANTINE_FILE)
        with files.atomic_write(path) as target:
            for number in range(len(reports) + 1):  # one more: of what stands behind the last row
                if f"{number:05d}.jsonl" in unread:
                    with files.open_read(f"{block_stem(self.work, number)}.jsonl") as source:
                        for line in source:
                            reasons[json.loads(line)["reason"]] += 1
                            target.write(line)
                if number < len(reports) and reports[number]["refused"]:
                    for refused in files.read_json(report_path(self.parts, part_name(number)))["refused"]:
                        reasons[refused["reason"]] += 1
                        target.write(json.dumps(refused, sort_keys=True).encode() + b"\n")
        if not reasons:
            files.remove(path)
        return reasons


def _write_lookup(_: Item, *, previous: str, folder: str) -> Report:
    write_lookup(read_embeddings(previous, verify=True), folder)
    return {}


def _nucleotides(reports: Iterable[PartReport]) -> dict[str, Nucleotides]:
    """What looks like DNA or RNA, by source."""
    by_source: dict[str, Nucleotides] = {}
    for report in reports:
        for source, found in report.get("nucleotides", {}).items():
            by_source.setdefault(source, Nucleotides()).add(found["first"], found["number"])
    return by_source
