"""The stage ``embed``: proteins or texts into a folder of embeddings.

One part of the output is one unit of work; a run that was interrupted goes on with those that have no report. The
manifest comes last.

WORK/cut/00000.parquet …     chunks of the input, until their parts are committed; not of pairs
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
from protclip.embeddings.chunks import (
    ChunkItem,
    PartReport,
    chunk_stem,
    file_chunks,
    pairs_chunks,
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
from protclip.units import InProcess, Item, Report, Run, Work, do_units, finished_units, report_path
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
        chunks = None
        if self.inputs.kind == "pairs" and not self.config.deduplicate:
            chunks = pairs_chunks(self.inputs.paths[0], self.job.part_rows)
        for _ in show_progress(self.embed(chunks, committed), [*committed.values()], chunks=chunks):
            pass
        return self.commit(self.records([chunk["unit"] for chunk in self.chunks(chunks)]))

    def records(self, names: Iterable[str]) -> list[PartReport]:
        """The reports of parts, in order, each with the first alone of the rows that were refused."""
        return files.in_threads(lambda name: _small(files.read_json(report_path(self.parts, name))), names)

    def committed(self) -> dict[str, PartReport]:
        """The reports of the parts that are there, by name."""
        there, names = set(files.list_folder(self.folder)), sorted(finished_units(self.parts))
        found = {}
        for name, record in zip(names, self.records(names), strict=True):
            if set(record["files"]) <= there:
                found[name] = record
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

    def chunks(self, of_pairs: Sequence[ChunkItem] | None) -> Sequence[ChunkItem]:
        """The items of all parts, once the inputs are cut."""
        return of_pairs if of_pairs is not None else file_chunks(self.work) or []

    def embed(self, of_pairs: Sequence[ChunkItem] | None, committed: Mapping[str, PartReport]) -> Iterator[Report]:
        """The reports of all parts that are not yet committed."""
        from protclip.embeddings.parts import EmbedChunk
        from protclip.embeddings.repeats import copy_repeats

        unit = EmbedChunk(self.config, self.work, fingerprint=self.job.fingerprint, threads=self.do.threads)
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
        chunks = self.chunks(of_pairs)
        yield from do_units(embedding, [chunk for chunk in chunks if not chunk.get("repeats")], self.parts, self.do)
        # They are copied from the parts of all others.
        copy = partial(copy_repeats, config=self.config, work=self.work)
        repeats = [chunk for chunk in chunks if chunk.get("repeats")]
        yield from do_units(Work(title="copying", unit=copy), repeats, self.parts, self.do)

    def is_cut(self, committed: Mapping[str, PartReport]) -> bool:
        """Whether all chunks that are not embedded lie in the work folder: then the input is not read again."""
        there = set(files.list_folder(files.join(self.work, "cut")))
        chunks = file_chunks(self.work)
        return chunks is not None and all(
            chunk["unit"] in committed or chunk["path"].rsplit("/", 1)[-1] in there for chunk in chunks
        )

    def commit(self, records: Sequence[PartReport]) -> dict[str, Any]:
        """Write the quarantine and the manifest, and remove the work folder."""
        reasons = self.gather_quarantine(records)
        num_rows = sum(record["rows"] for record in records)
        source = self.inputs.paths[0] if len(self.inputs.paths) == 1 else list(self.inputs.paths)
        if not num_rows:
            detail = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(reasons.items()))
            where = files.join(self.folder, QUARANTINE_FILE)
            said = f"; all {reasons.total():,} are bad ({detail}), each is listed in {where}" if reasons else ""
            raise DataError(f"{source}: holds nothing that can be embedded{said}.")
        nucleotides = _nucleotides(records)
        for path, found in nucleotides.items():
            echo(f"embed: {found.warning(path)}", err=True)
        num_long, long = sum(record["long"] for record in records), self.config.long
        manifest = write_manifest(
            self.folder,
            KIND,
            [QUARANTINE_FILE] if reasons else [],
            described={name: entry for record in records for name, entry in record["files"].items()},
            content=self.content,
            rows=num_rows,
            quarantined=reasons.total(),
            source=source,
            settings={name: value for name, value in self.config.settings().items() if name != "content"},
            counts={
                "truncated": num_long if long == "truncate" else 0,
                "window_mean": num_long if long == "window-mean" else 0,
                "mapped_letters": dict(_total(record["mapped"] for record in records)),
                "quarantined_by_reason": dict(sorted(reasons.items())),
                **({"nucleotides": sum(found.number for found in nucleotides.values())} if nucleotides else {}),
                **self.reused(records),
            },
            model_fingerprint=self.job.fingerprint,
            dimension=self.job.dimension,
        )
        finish_folder(self.folder)
        return manifest

    def reused(self, records: Sequence[PartReport]) -> dict[str, int]:
        """Rows by where their vectors are from, and rows of the previous embeddings that are gone or changed."""
        if self.config.previous is None:
            return {}
        num_reused = sum(record["reused"] for record in records)
        num_before = read_manifest(self.config.previous, KIND)["rows"]
        num_rows = sum(record["rows"] for record in records)
        return {"reused": num_reused, "computed": num_rows - num_reused, "dropped": num_before - num_reused}

    def gather_quarantine(self, records: Sequence[PartReport]) -> Counter[str]:
        """Write what could not be used, in the order of the input; counts it by reason."""
        unread = set(files.list_folder(files.join(self.work, "cut")))
        reasons: Counter[str] = Counter()
        path = files.join(self.folder, QUARANTINE_FILE)
        with files.atomic_write(path) as target:
            for number in range(len(records) + 1):  # one more: of what stands behind the last row
                if f"{number:05d}.jsonl" in unread:
                    with files.open_read(f"{chunk_stem(self.work, number)}.jsonl") as source:
                        for line in source:
                            reasons[json.loads(line)["reason"]] += 1
                            target.write(line)
                if number < len(records) and records[number]["refused"]:
                    for refused in files.read_json(report_path(self.parts, part_name(number)))["refused"]:
                        reasons[refused["reason"]] += 1
                        target.write(json.dumps(refused, sort_keys=True).encode() + b"\n")
        if not reasons:
            files.remove(path)
        return reasons


def _write_lookup(_: Item, *, previous: str, folder: str) -> Report:
    write_lookup(read_embeddings(previous, verify=True), folder)
    return {}


def _small(report: PartReport) -> PartReport:
    """The driver keeps the reports of all parts."""
    return {**report, "refused": report["refused"][:1]}


def _nucleotides(records: Iterable[PartReport]) -> dict[str, Nucleotides]:
    """What looks like DNA or RNA, by source."""
    total: dict[str, Nucleotides] = {}
    for record in records:
        for source, found in record.get("nucleotides", {}).items():
            total.setdefault(source, Nucleotides()).add(found["first"], found["number"])
    return total


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Sums by key, without zeros."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return Counter(dict(sorted((+total).items())))
