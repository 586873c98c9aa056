"""One run of ``protclip embed``: parts that are committed one by one, and then the manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.index.embeddings import KIND
from protclip.index.previous import KEYS_FILE
from protclip.manifest import finish_folder, read_manifest, write_manifest
from protclip.terminal import echo
from protclip.uniprot.residues import Nucleotides
from ray_jobs.embed_chunks import chunk_stem, cut, file_chunks, pairs_chunks
from ray_jobs.embed_inputs import Inputs
from ray_jobs.embed_progress import show_progress
from ray_jobs.pipelines import run_actors, run_tasks

QUARANTINE_FILE = "quarantine.jsonl"


class EmbedJob:
    """One run, and what it leaves in the work folder.

    WORK/cut/00000.parquet …     chunks of the input, until their parts are committed; not of pairs
    WORK/cut/00000.jsonl …       what could not be read among them
    WORK/cut/repeats-00000.parquet …    rows that repeat the value of an earlier one
    WORK/cut.json                once the input was cut to its end
    WORK/previous/               where to find which row in the previous embeddings
    WORK/parts/00000.json …      the record of each committed part
    """

    def __init__(
        self,
        inputs: Inputs,
        checkpoint: str,
        folder: str,
        work: str,
        settings: Any,
        *,
        fingerprint: str,
        part_rows: int,
        previous: str | None = None,
    ) -> None:
        self.inputs, self.checkpoint, self.folder, self.work = inputs, checkpoint, folder, work
        self.settings, self.fingerprint, self.part_rows, self.previous = settings, fingerprint, part_rows, previous
        self.parts_folder = files.join(work, "parts")

    def run(self, workers: tuple[int, int] | None, **facts: Any) -> dict[str, Any]:
        """Embed what is not yet embedded, on the connected Ray, and commit the folder.

        Args:
            workers: the fewest and the most actors; None for as many as the cluster has room for.
            facts: of the model, for the manifest.

        Returns:
            The manifest.

        Raises:
            DataError: if the input cannot be read to its end, or holds nothing that can be embedded.
            ConfigError: if there is no GPU where one is asked for, or the output cannot be written.
        """
        records = self.committed()
        if self.previous is not None:
            self.prepare_previous(self.previous)
        chunks = None
        if self.inputs.kind == "pairs" and not self.settings.deduplicate:
            chunks = pairs_chunks(self.inputs.paths[0], self.part_rows)
        for report in show_progress(self.embed(chunks, records, workers), [*records.values()], chunks=chunks):
            if "number" in report:
                records[report["number"]] = _small(report)
        num_chunks = len(chunks if chunks is not None else file_chunks(self.work) or [])
        # A worker that outlived a killed run may have committed a part meanwhile.
        for number in set(range(num_chunks)) - set(records):
            records[number] = _small(files.read_json(files.join(self.parts_folder, f"{number:05d}.json")))
        return self.commit([records[number] for number in range(num_chunks)], **facts)

    def committed(self) -> dict[int, dict[str, Any]]:
        """The records of the parts that are there, by number."""
        there = set(files.list_folder(self.folder))
        names = [name for name in files.list_folder(self.parts_folder) if name.endswith(".json")]
        paths = [files.join(self.parts_folder, name) for name in names]
        found = files.in_threads(lambda path: _small(files.read_json(path)), paths)
        records = {}
        for path, record in zip(paths, found, strict=True):
            if set(record["files"]) <= there:
                records[record["number"]] = record
            else:  # somebody removed a file
                files.remove(path)
        return records

    def prepare_previous(self, previous: str) -> None:
        """Write the lookup of the previous embeddings, where an earlier run did not."""
        from ray_jobs.stages import previous_folder, write_previous_lookup

        if KEYS_FILE not in files.list_folder(previous_folder(self.work)):
            for _ in run_tasks(write_previous_lookup, [{"previous": previous, "work": self.work}]):
                pass

    def embed(
        self,
        chunks: Sequence[Mapping[str, Any]] | None,
        records: Mapping[int, Any],
        workers: tuple[int, int] | None,
    ) -> Iterator[dict[str, Any]]:
        """The reports of all parts that are not yet committed."""
        from ray_jobs.stages import EmbedChunk, copy_repeats

        run = partial(
            run_actors,
            partial(
                EmbedChunk,
                self.checkpoint,
                self.folder,
                self.work,
                self.settings,
                fingerprint=self.fingerprint,
                previous=self.previous,
            ),
            num_actors=workers or available(self.settings.device),
            num_cpus=1.0,
            num_gpus=1.0 if self.settings.device == "cuda" else 0.0,
        )
        if chunks is None and not self.is_cut(records):
            cut_inputs = partial(
                cut,
                inputs=self.inputs,
                content=self.settings.content,
                part_rows=self.part_rows,
                work=self.work,
                deduplicate=self.settings.deduplicate,
            )
            yield from run([{"done": sorted(records)}], cut=lambda item: cut_inputs(item["done"]))
        done = {
            int(name.removesuffix(".json")) for name in files.list_folder(self.parts_folder) if name.endswith(".json")
        }
        missing = [chunk for chunk in chunks or file_chunks(self.work) or [] if chunk["number"] not in done]
        yield from run([chunk for chunk in missing if not chunk.get("repeats")])
        # They are copied from the parts of all others.
        repeats = [chunk for chunk in missing if chunk.get("repeats")]
        copy = partial(copy_repeats, output=self.folder, work=self.work, settings=self.settings)
        yield from run_tasks(copy, repeats)

    def is_cut(self, records: Mapping[int, Any]) -> bool:
        """Whether all chunks that are not embedded lie in the work folder: then the input is not read again."""
        there = set(files.list_folder(files.join(self.work, "cut")))
        chunks = file_chunks(self.work)
        return chunks is not None and all(
            chunk["number"] in records or chunk["path"].rsplit("/", 1)[-1] in there for chunk in chunks
        )

    def commit(self, records: Sequence[Mapping[str, Any]], **facts: Any) -> dict[str, Any]:
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
        num_long, long = sum(record["long"] for record in records), self.settings.long
        manifest = write_manifest(
            self.folder,
            KIND,
            [QUARANTINE_FILE] if reasons else [],
            described={name: entry for record in records for name, entry in record["files"].items()},
            content=self.settings.content,
            rows=num_rows,
            quarantined=reasons.total(),
            source=source,
            settings={name: value for name, value in asdict(self.settings).items() if name != "content"},
            counts={
                "truncated": num_long if long == "truncate" else 0,
                "window_mean": num_long if long == "window-mean" else 0,
                "mapped_letters": dict(_total(record["mapped"] for record in records)),
                "quarantined_by_reason": dict(sorted(reasons.items())),
                **({"nucleotides": sum(found.number for found in nucleotides.values())} if nucleotides else {}),
                **self.reused(records),
            },
            **facts,
        )
        finish_folder(self.folder)
        return manifest

    def reused(self, records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Rows by where their vectors are from, and rows of the previous embeddings that are gone or changed."""
        if self.previous is None:
            return {}
        num_reused = sum(record["reused"] for record in records)
        num_before = read_manifest(self.previous, KIND)["rows"]
        num_rows = sum(record["rows"] for record in records)
        return {"reused": num_reused, "computed": num_rows - num_reused, "dropped": num_before - num_reused}

    def gather_quarantine(self, records: Sequence[Mapping[str, Any]]) -> Counter[str]:
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
                    for refused in files.read_json(files.join(self.parts_folder, f"{number:05d}.json"))["refused"]:
                        reasons[refused["reason"]] += 1
                        target.write(json.dumps(refused, sort_keys=True).encode() + b"\n")
        if not reasons:
            files.remove(path)
        return reasons


def available(device: str) -> tuple[int, int]:
    """The fewest and the most actors: up to as many as the connected cluster has CPUs, or GPUs.

    Raises:
        ConfigError: if it has none.
    """
    import ray

    number = int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 0))  # type: ignore[no-untyped-call]
    if number < 1:
        raise ConfigError("--use-gpu: the cluster has no GPU; leave it out, or join a cluster that has (RAY_ADDRESS).")
    return 1, number


def _small(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what the refused rows are: the driver keeps those of all parts."""
    return {**record, "refused": len(record["refused"])}


def _nucleotides(records: Iterable[Mapping[str, Any]]) -> dict[str, Nucleotides]:
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
