"""What runs in actors of batch jobs: shells round ``protclip``."""

from __future__ import annotations

import contextlib
import ctypes
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from protclip import files
from protclip.embedding import ProtCLIP
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.fields import check_number, check_types
from protclip.index.embeddings import LONG, Dtype, read_embeddings, read_part
from protclip.index.parts import Format, Precision, write_part, write_residues
from protclip.index.previous import Lookup, write_lookup
from protclip.inputs import LongPolicy
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.residues import bare_residues, count_mapped
from ray_jobs.embed_chunks import count_nucleotides, place_of, read_chunk, record_path
from ray_jobs.embed_inputs import Content

TOO_LONG = "longer than the model sees"
"""The reason by which such proteins are quarantined where that is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedSettings:
    """What decides on the bytes of a part, beside its rows and the model; all fields are JSON values."""

    dtype: Dtype
    """Of the model's matrix products and attention. The driver decides, for all workers."""
    content: Content = "protein"
    long: LongPolicy | None = "truncate"
    """None where texts are embedded."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """Of torch in an actor: sums depend on it in their last bits."""
    format: Format = "parquet"
    precision: Precision = "float32"
    """Of stored vectors."""
    deduplicate: bool = False
    """Whether rows of one value are computed once over all parts; within a part they are always."""
    residues: bool = False
    """Also the residues' own vectors."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("threads", self.threads, at_least=1)
        if (self.content == "text") != (self.long is None):
            raise ConfigError(f"long={self.long!r} is for proteins, content={self.content!r} is embedded.")


class EmbedChunk:
    """Embeds the rows of one chunk, writes them as one part, and then its record: from there on it is done.

    An item has the ``number`` of the part, the chunk's file (``path``) and row groups, and whether they are ``pairs``.
    The report is the record: rows ``read`` and embedded (``rows``), ``residues`` or characters of the latter, how many
    are longer than the model sees (``long``), mapped letters by kind, the ``files`` with their checksums, and the
    ``refused`` rows. Where no row was embedded there are no files.
    """

    def __init__(
        self,
        checkpoint: str,
        output: str,
        work: str,
        settings: EmbedSettings,
        *,
        fingerprint: str | None = None,
        previous: str | None = None,
    ) -> None:
        torch.set_num_threads(settings.threads)
        self.model = ProtCLIP.from_pretrained(checkpoint, device=settings.device, dtype=settings.dtype)
        if fingerprint not in (None, self.model.fingerprint):  # a name is looked up on each node
            raise CheckpointError(
                f"{checkpoint}: is the model {self.model.fingerprint} on the node {socket.gethostname()}, and "
                f"{fingerprint} where the run was started; fetch it there again: `protclip fetch-model {checkpoint} "
                "--overwrite`."
            )
        self.output, self.work, self.settings = output, work, settings
        self.lookup: Lookup | None = None
        if previous is not None:
            self.lookup = Lookup(read_embeddings(previous, verify=False), previous_folder(work))

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if "total" in item:
            return dict(item)
        path = record_path(self.work, item["number"])
        if files.exists(path):  # an actor that died after its last write: Ray gives its item to another
            record: dict[str, Any] = files.read_json(path)
            return record
        try:
            rows = read_chunk(item, self.settings.content)
        except DataError:
            if not files.exists(path):  # a worker that outlived a killed run was faster, and removed the chunk
                raise
            return dict(files.read_json(path))
        record = {"number": item["number"], "read": len(rows)}
        rows, refused = self._without_refused(rows)
        vectors_ND, residues, unfit, record["reused"] = self._embedded_or_reused(rows)
        if unfit:
            refused += [(i, unfit[i].at(**place_of(rows, i))) for i in sorted(unfit)]
            kept = np.array([i not in unfit for i in range(len(rows))])
            rows, vectors_ND = rows.filter(pa.array(kept)), vectors_ND[kept]
            residues = [residues[i] for i in np.flatnonzero(kept)] if residues else []
        record |= self._counts(rows) | {"refused": [entry.record() for _, entry in refused], "files": {}}
        with files.telling_what_cannot_be_written(self.output):
            if len(rows):
                record["files"] = self._write(item["number"], rows, vectors_ND, residues)
            files.write_json(path, record)
        if not item["pairs"]:
            files.remove(item["path"])
        _return_free_memory()
        return record

    def _without_refused(self, rows: pa.Table) -> tuple[pa.Table, list[tuple[int, BadEntry]]]:
        """The rows that can be embedded, with the column LONG; and why the others cannot."""
        settings, refusals = self.settings, dict[int, RefusedError]()
        long = pa.nulls(len(rows), LONG.type)
        if settings.content == "protein":
            longest = self.model.max_protein_tokens - 2
            lengths = [len(bare_residues(sequence)) for sequence in rows.column("sequence").to_pylist()]
            long = pa.array([settings.long if length > longest else None for length in lengths], LONG.type)
            allowed = f"at most {longest} residues, or --long truncate, or --long window-mean"
            if settings.long == "error":
                refusals = {
                    i: RefusedError(TOO_LONG, f"{length} residues", allowed)
                    for i, length in enumerate(lengths)
                    if length > longest
                }
        if settings.format == "h5":
            for i, accession in enumerate(rows.column("accession").to_pylist()):
                if "/" in accession or accession == ".":
                    refusals[i] = RefusedError("no name of an HDF5 dataset", accession, "accessions without /")
        kept = np.array([i not in refusals for i in range(len(rows))], dtype=bool)
        refused = [(i, refusals[i].at(**place_of(rows, i))) for i in sorted(refusals)]
        return rows.append_column(LONG, long).filter(pa.array(kept)), refused

    def _embedded_or_reused(self, rows: pa.Table) -> tuple[np.ndarray, list[np.ndarray], dict[int, RefusedError], int]:
        """What ``_embedded`` gives, with vectors of the previous folder for the rows it has; and how many these are."""
        if self.lookup is None:
            return *self._embedded(rows), 0
        found, vectors_ND = self.lookup.find(rows)
        new = np.flatnonzero(~found)
        vectors_ND[new], _, unfit = self._embedded(rows.take(new))
        return vectors_ND, [], {int(new[i]): refusal for i, refusal in unfit.items()}, int(found.sum())

    def _embedded(self, rows: pa.Table) -> tuple[np.ndarray, list[np.ndarray], dict[int, RefusedError]]:
        """Vectors (N, D), the residues' own where they are asked for, and why a row has none."""
        settings = self.settings
        # What is there more than once is computed once.
        values = rows.column("sequence" if settings.content == "protein" else "text").combine_chunks()
        encoded = values.dictionary_encode()
        distinct, place_N = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        problems: dict[int, RefusedError] = {}
        residues: list[np.ndarray] = []

        def refuse(i: int, why: str) -> None:
            problems[i] = RefusedError("does not fit into memory", why, "what a device can hold")

        if settings.content == "text":
            vectors_UD = self.model.embed_texts(distinct, refuse=refuse)
        elif settings.residues:
            assert settings.long in ("truncate", "error")
            vectors_UD, residues = self.model.embed_with_residues(distinct, long=settings.long, refuse=refuse)
        else:
            assert settings.long is not None
            vectors_UD = self.model.embed_proteins(distinct, long=settings.long, refuse=refuse)
        for i in np.flatnonzero(~np.isfinite(vectors_UD).all(axis=1)).tolist():
            problems.setdefault(i, RefusedError("embedding is not finite", "NaN or infinity", "numbers"))
        unfit = {i: problems[place] for i, place in enumerate(place_N.tolist()) if place in problems}
        return vectors_UD[place_N], [residues[place] for place in place_N] if residues else [], unfit

    def _counts(self, rows: pa.Table) -> dict[str, Any]:
        if self.settings.content == "text":
            num_tokens = pc.sum(pc.utf8_length(rows.column("text"))).as_py()
            return {"rows": len(rows), "residues": num_tokens or 0, "long": 0, "mapped": {}, "nucleotides": {}}
        sequences = rows.column("sequence").to_pylist()
        seen = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        if self.settings.long != "window-mean":
            seen = np.minimum(seen, self.model.max_protein_tokens - 2)
        return {
            "rows": len(rows),
            "residues": int(seen.sum()),
            "long": len(rows) - rows.column(LONG.name).null_count,
            "mapped": count_mapped(sequences),
            "nucleotides": count_nucleotides(rows),
        }

    def _write(
        self, number: int, rows: pa.Table, vectors_ND: np.ndarray, residues: Sequence[np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        form = self.settings.format
        written = write_part(self.output, number, rows, vectors_ND, form=form, precision=self.settings.precision)
        if self.settings.residues:
            accessions = rows.column("accession").to_pylist()
            written |= write_residues(self.output, number, accessions, residues, form=form)
        return written


def _return_free_memory() -> None:
    """Give the system what is free in glibc's heap: tensors of ever other sizes leave holes in it, and a worker that
    needs 0.5 GB would hold 1.7 GB after 500 batches (tests/ray_jobs/test_embed_memory.py)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def previous_folder(work: str) -> str:
    """Where the lookup of previous embeddings is."""
    return files.join(work, "previous")


def write_previous_lookup(item: Mapping[str, Any]) -> dict[str, Any]:
    """One task: the lookup of a folder of embeddings (``previous``) into the work folder (``work``)."""
    write_lookup(read_embeddings(item["previous"], verify=True), previous_folder(item["work"]))
    return {}


def copy_repeats(item: Mapping[str, Any], *, output: str, work: str, settings: EmbedSettings) -> dict[str, Any]:
    """One task: the part of a chunk of repeats, each row with the vector of the first one of its value.

    Item and report are those of EmbedChunk. The parts of all other chunks are committed.
    """
    path = record_path(work, item["number"])
    if files.exists(path):
        record: dict[str, Any] = files.read_json(path)
        return record
    rows = read_chunk(item, settings.content)
    value = "sequence_hash" if settings.content == "protein" else "text"
    part_of_row, wanted = rows["same_as"].to_numpy(), rows[value].to_pylist()
    long: list[str | None] = [None] * len(rows)
    vector_of_row: dict[int, np.ndarray] = {}
    for number in np.unique(part_of_row).tolist():
        written = files.read_json(record_path(work, number))["files"]
        for name in (name for name in written if name.startswith("part-") and name.endswith(".parquet")):
            vectors_ND, metadata, long_of_part = read_part(output, name, written)
            first = {key: i for i, key in enumerate(metadata[value].to_pylist())}
            for i in np.flatnonzero(part_of_row == number).tolist():
                if (at := first.get(wanted[i])) is not None:
                    vector_of_row[i], long[i] = vectors_ND[at], long_of_part[at]
    refused = [
        RefusedError("the same as one that was refused", f"in part {part_of_row[i]}", "what can be embedded").at(
            **place_of(rows, i)
        )
        for i in range(len(rows))
        if i not in vector_of_row
    ]
    kept = sorted(vector_of_row)
    rows = rows.append_column(LONG, pa.array(long, LONG.type)).take(pa.array(kept, pa.int64()))
    written = {}
    if kept:
        vectors_ND = np.stack([vector_of_row[i] for i in kept])
        form = settings.format
        with files.telling_what_cannot_be_written(output):
            written = write_part(output, item["number"], rows, vectors_ND, form=form, precision=settings.precision)
    is_protein = settings.content == "protein"
    record = {
        "number": item["number"],
        "read": len(wanted),
        "rows": len(kept),
        "reused": 0,
        "residues": 0,
        "long": len(kept) - rows[LONG.name].null_count,
        "mapped": count_mapped(rows["sequence"].to_pylist()) if is_protein else {},
        "nucleotides": count_nucleotides(rows) if is_protein else {},
        "refused": [entry.record() for entry in refused],
        "files": written,
    }
    with files.telling_what_cannot_be_written(output):
        files.write_json(path, record)
    files.remove(item["path"])
    return record
