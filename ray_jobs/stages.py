"""What runs in actors of batch jobs: shells round ``protclip``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.data.tokenize import biotexts
from protclip.embedding import LongPolicy, ProtCLIP
from protclip.index.embeddings import METADATA
from protclip.protanno.shards import RowGroup, read_metadata, read_row_group
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.residues import bare_residues, count_mapped

Content = Literal["protein", "text"]

TOO_LONG = "longer than the model sees"
"""The reason by which such proteins are quarantined where that is asked for."""


LONG = pa.field("long", pa.string())
"""Column of a part: the policy by which a protein longer than the model sees was embedded; null for all others."""


class EmbedChunk:
    """Embeds the rows of one chunk and writes them as one part.

    An item names the chunk's file and row groups, whether they are ``pairs``, the ``source`` to name in refusals, and
    the part to write. The report has the number of rows read and of rows embedded, how many of the latter are longer
    than the model sees, their mapped letters by kind, and the records of those refused; ``part`` is None where no row
    was embedded.

    ``long`` is None where texts are embedded.
    """

    def __init__(
        self, checkpoint: str, content: Content, output: str, *, long: LongPolicy | None, use_gpu: bool
    ) -> None:
        self.model = ProtCLIP.from_pretrained(checkpoint, device="cuda" if use_gpu else "cpu")
        self.content = content
        self.output = output
        self.long = long

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        groups = [RowGroup(path=item["path"], index=i, num_rows=0) for i in item["row_groups"]]
        rows = pa.concat_tables([read_row_group(group) for group in groups])
        if item["pairs"]:
            rows = items_of_pairs(rows, self.content)
        report: dict[str, Any] = {"part": item["part"], "read": len(rows), "long": 0, "mapped": {}, "refused": []}
        if self.content == "text":
            long = pa.nulls(len(rows), LONG.type)
            vectors_ND = self.model.embed_texts(rows.column("text").to_pylist())
        else:
            assert self.long is not None
            is_long = self._is_long(rows)
            if self.long == "error" and is_long.any():
                lines = row_numbers(groups) if item["pairs"] else rows.column("line").to_numpy()
                entries = self._refusals(rows.filter(is_long), lines[is_long], item["source"])
                report["refused"] = [entry.record() for entry in entries]
                rows, is_long = rows.filter(~is_long), is_long[~is_long]
            sequences = rows.column("sequence").to_pylist()
            report["long"] = int(is_long.sum())
            report["mapped"] = count_mapped(sequences)
            long = pa.array([self.long if beyond else None for beyond in is_long], LONG.type)
            vectors_ND = self.model.embed_proteins(sequences, long=self.long)
        if len(rows):
            with files.atomic_write(files.join(self.output, item["part"])) as stream:
                pq.write_table(part_table(rows, long, vectors_ND), stream, compression="zstd")
        else:
            report["part"] = None
        return {**report, "rows": len(rows)}

    def _is_long(self, rows: pa.Table) -> np.ndarray:
        longest = self.model.max_protein_tokens - 2
        lengths = (len(bare_residues(sequence)) for sequence in rows.column("sequence").to_pylist())
        return np.fromiter((length > longest for length in lengths), dtype=bool, count=len(rows))

    def _refusals(self, rows: pa.Table, lines: np.ndarray, source: str) -> list[BadEntry]:
        allowed = f"at most {self.model.max_protein_tokens - 2} residues, or --long truncate, or --long window-mean"
        return [
            RefusedError(TOO_LONG, f"{len(bare_residues(row['sequence']))} residues", allowed).at(
                source=source, line=int(line), accession=row["accession"]
            )
            for row, line in zip(rows.to_pylist(), lines, strict=True)
        ]


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
    return (
        np.concatenate(
            [
                np.arange(ends[group.index] - footer.row_group(group.index).num_rows, ends[group.index])
                for group in groups
            ]
        )
        + 1
    )


def part_table(rows: pa.Table, long: pa.Array, vectors_ND: np.ndarray) -> pa.Table:
    """METADATA's columns, how long proteins were read, and the embeddings, as a part holds them."""
    flat = pa.array(np.ascontiguousarray(vectors_ND).reshape(-1), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
    table = rows.select(METADATA.names).cast(METADATA)
    return table.append_column(LONG, long).append_column("embedding", column)
