"""What runs in actors of batch jobs: shells round ``protclip``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from protclip import files
from protclip.data.tokenize import biotexts
from protclip.embedding import LongPolicy, ProtCLIP
from protclip.index.embeddings import LONG
from protclip.index.parts import Format, Precision, write_part, write_residues
from protclip.protanno.shards import RowGroup, read_metadata, read_row_group
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.residues import bare_residues, count_mapped

Content = Literal["protein", "text"]

TOO_LONG = "longer than the model sees"
"""The reason by which such proteins are quarantined where that is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedSettings:
    """What decides on the bytes of a part, beside its rows and the model; all fields are JSON values."""

    content: Content = "protein"
    long: LongPolicy | None = "truncate"
    """None where texts are embedded."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products and attention."""
    threads: int = 1
    """Of torch in an actor: sums depend on it in their last bits."""
    format: Format = "parquet"
    precision: Precision = "float32"
    """Of stored vectors."""
    residues: bool = False
    """Also the residues' own vectors."""


class EmbedChunk:
    """Embeds the rows of one chunk, writes them as one part, and then its record: from there on it is done.

    An item has the ``number`` of the part, the chunk's file (``path``) and row groups, and whether they are ``pairs``.
    The report is the record: rows ``read`` and embedded (``rows``), ``residues`` or characters of the latter, how many
    are longer than the model sees (``long``), mapped letters by kind, the ``files`` with their checksums, and the
    ``refused`` rows. Where no row was embedded there are no files.
    """

    def __init__(self, checkpoint: str, output: str, work: str, settings: EmbedSettings) -> None:
        torch.set_num_threads(settings.threads)
        self.model = ProtCLIP.from_pretrained(checkpoint, device=settings.device, dtype=getattr(torch, settings.dtype))
        self.output, self.work, self.settings = output, work, settings

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if "total" in item:
            return dict(item)
        path = record_path(self.work, item["number"])
        if files.exists(path):  # an actor that died after its last write: Ray gives its item to another
            record: dict[str, Any] = files.read_json(path)
            return record
        rows = read_chunk(item, self.settings.content)
        record = {"number": item["number"], "read": len(rows)}
        rows, refused = self._without_refused(rows)
        vectors_ND, residues, unfit = self._embedded(rows)
        if unfit:
            refused += [(i, unfit[i].at(**_place(rows, i))) for i in sorted(unfit)]
            kept = np.array([i not in unfit for i in range(len(rows))])
            rows, vectors_ND = rows.filter(pa.array(kept)), vectors_ND[kept]
            residues = [array for array, keep in zip(residues, kept, strict=True) if keep]
        record |= self._counts(rows) | {"refused": [entry.record() for _, entry in refused], "files": {}}
        if len(rows):
            record["files"] = self._write(item["number"], rows, vectors_ND, residues)
        files.write_json(path, record)
        if not item["pairs"]:
            files.remove(item["path"])
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
        refused = [(i, refusals[i].at(**_place(rows, i))) for i in sorted(refusals)]
        return rows.append_column(LONG, long).filter(pa.array(kept)), refused

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
            return {"rows": len(rows), "residues": num_tokens or 0, "long": 0, "mapped": {}}
        sequences = rows.column("sequence").to_pylist()
        seen = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        if self.settings.long != "window-mean":
            seen = np.minimum(seen, self.model.max_protein_tokens - 2)
        return {
            "rows": len(rows),
            "residues": int(seen.sum()),
            "long": len(rows) - rows.column(LONG.name).null_count,
            "mapped": count_mapped(sequences),
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


def record_path(work: str, number: int) -> str:
    """Where the record of a part is."""
    return files.join(work, "parts", f"{number:05d}.json")


def read_chunk(item: Mapping[str, Any], content: Content) -> pa.Table:
    """The rows of an item, with the columns of CHUNK_SCHEMA."""
    groups = [RowGroup(path=item["path"], index=i, num_rows=0) for i in item["row_groups"]]
    rows = pa.concat_tables([read_row_group(group) for group in groups])
    if not item["pairs"]:
        return rows
    rows = items_of_pairs(rows, content)
    source = pa.array([item["path"]] * len(rows), pa.string())
    return rows.append_column("source", source).append_column("line", pa.array(row_numbers(groups)))


def _place(rows: pa.Table, i: int) -> dict[str, Any]:
    return {name: rows.column(name)[i].as_py() for name in ("source", "line", "accession")}


def items_of_pairs(pairs: pa.Table, content: Content) -> pa.Table:
    """Rows of the pairs' schema as rows to embed: METADATA's columns and the sequence."""
    columns = {
        **{name: pairs.column(name) for name in ("accession", "sequence", "organism", "organism_id", "reviewed", "ec")},
        "name": pc.coalesce(pairs.column("display_name"), pairs.column("name")),
        "length": pc.cast(pc.utf8_length(pairs.column("sequence")), pa.int32()),
        "sequence_hash": pairs.column("sequence_hash"),
        "text": pa.array(biotexts(pairs) if content == "text" else [None] * len(pairs), pa.string()),
    }
    return pa.table(columns)


def row_numbers(groups: Sequence[RowGroup]) -> np.ndarray:
    """Where the rows of some row groups of one file stand in it, from 1."""
    footer = read_metadata(groups[0].path)
    ends = np.cumsum([footer.row_group(i).num_rows for i in range(footer.num_row_groups)])
    starts = [ends[group.index] - footer.row_group(group.index).num_rows for group in groups]
    return np.concatenate([np.arange(start, ends[g.index]) for start, g in zip(starts, groups, strict=True)]) + 1
