"""The units of work of ``protclip embed``: blocks of as many rows as a part has.

A folder of pairs is in row groups already. Other inputs are cut in their order into block files in the work
folder, while those that are there are embedded; a block file goes when its part is committed.

Where identical values are to be computed once, the blocks hold each at its first row, and the rows that repeat one go
into blocks of their own, whose parts come behind and are copied from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip import files
from protclip.data.tokenize import biotexts
from protclip.embeddings.reading import LONG, METADATA, Content
from protclip.parquet import with_column
from protclip.protanno.shards import SPLITS, RowGroup, read_metadata, read_pairs, read_row_groups
from protclip.uniprot.residues import Nucleotides, count_mapped, looks_like_nucleotides

BLOCK_SCHEMA = pa.schema(
    [
        *METADATA,
        pa.field("sequence", pa.string()),
        # Where a row is from, for refusals: file, and its line, row, or number of entry, from 1.
        pa.field("source", pa.string()),
        pa.field("line", pa.int64()),
        # The part with the first row of the same value, where it is not this row itself.
        pa.field("same_as", pa.int64()),
    ]
)
_TAKEN_OVER = ("accession", "sequence", "organism", "organism_id", "reviewed", "ec", "gene")
CUT_FILE = "cut.json"
"""In the work folder once the inputs were cut to their end: numbers of blocks (``chunks``), those of repeats, rows."""


class BlockItem(TypedDict):
    """What a unit is told that makes a part."""

    unit: str
    """The part's name."""
    path: str
    """The parquet file with the rows."""
    row_groups: list[int]
    """Of the file."""
    pairs: bool
    """Whether they are rows of a folder of pairs."""
    rows: NotRequired[int]
    """How many; of pairs alone."""
    spent: NotRequired[str]
    """The file, where it goes with the block."""
    repeats: NotRequired[bool]
    """Whether all of them repeat the values of earlier ones."""


class PartCounts(TypedDict):
    """Of the rows that were embedded."""

    rows: int
    residues: int
    """Or characters."""
    long: int
    """Longer than the model sees."""
    mapped: dict[str, int]
    """Letters by kind."""
    nucleotides: dict[str, dict[str, Any]]
    """The fields of Nucleotides by source."""


class PartReport(PartCounts):
    """What is known of a part."""

    number: int
    read: int
    """Rows, with those that were refused."""
    reused: int
    """Rows with the vectors of the previous embeddings."""
    refused: list[dict[str, Any]]
    """As BadEntry.record has them."""
    files: dict[str, dict[str, Any]]
    """With their checksums; none where no row was embedded."""


def pairs_blocks(folder: str, part_rows: int) -> list[BlockItem]:
    """The row groups of a folder of pairs as items of about so many rows each, never of two files."""
    blocks: list[BlockItem] = []
    pairs = read_pairs(folder)
    for split in reversed(SPLITS):
        pending: list[RowGroup] = []
        for group in pairs.row_groups(split):
            full = sum(waiting.num_rows for waiting in pending) + group.num_rows > part_rows
            if pending and (full or group.path != pending[0].path):
                blocks.append(_pairs_block(pending, len(blocks)))
                pending = []
            pending.append(group)
        if pending:
            blocks.append(_pairs_block(pending, len(blocks)))
    return blocks


def file_blocks(work: str) -> list[BlockItem] | None:
    """The items of all block files, those of repeats behind the others; None where the inputs are not cut."""
    if not files.exists(files.join(work, CUT_FILE)):
        return None
    cut_to = files.read_json(files.join(work, CUT_FILE))
    first = [file_block(block_stem(work, number), number) for number in range(cut_to["chunks"])]
    stems = (repeats_stem(work, number) for number in range(cut_to["repeats"]))
    return first + [file_block(stem, number, repeats=True) for number, stem in enumerate(stems, start=len(first))]


def block_stem(work: str, number: int) -> str:
    """Of a block's files: its rows (.parquet), and what could not be read among them (.jsonl)."""
    return files.join(work, "cut", f"{number:05d}")


def parts_folder(work: str) -> str:
    """Where the reports of the parts are."""
    return files.join(work, "parts")


def part_name(number: int) -> str:
    """The name of the unit that makes a part."""
    return f"{number:05d}"


def read_block(item: BlockItem, content: Content) -> pa.Table:
    """The rows of an item, with the columns of BLOCK_SCHEMA."""
    rows = pa.concat_tables(read_row_groups(item["path"], item["row_groups"]))
    rows = with_column(rows, METADATA.field("gene"))
    if not item["pairs"]:
        return rows
    groups = [RowGroup(path=item["path"], index=i, num_rows=0) for i in item["row_groups"]]
    return items_of_pairs(rows, groups, content)


def place_of(rows: pa.Table, i: int) -> dict[str, Any]:
    return {name: rows.column(name)[i].as_py() for name in ("source", "line", "accession")}


def part_counts(rows: pa.Table, content: Content, *, residues: int) -> PartCounts:
    """What a report says of the rows of a part, with the column LONG, of which so many residues were computed."""
    is_protein = content == "protein"
    return {
        "rows": len(rows),
        "residues": residues,
        "long": len(rows) - rows[LONG.name].null_count,
        "mapped": count_mapped(rows["sequence"].to_pylist()) if is_protein else {},
        "nucleotides": _count_nucleotides(rows) if is_protein else {},
    }


def _count_nucleotides(rows: pa.Table) -> dict[str, dict[str, Any]]:
    """The proteins that look like DNA or RNA, as the fields of Nucleotides by source."""
    found: dict[str, Nucleotides] = {}
    names = ("source", "accession", "name", "sequence")
    for source, accession, name, sequence in zip(*(rows.column(column).to_pylist() for column in names), strict=True):
        if looks_like_nucleotides(sequence, name):
            found.setdefault(source, Nucleotides()).add(accession)
    return {source: asdict(nucleotides) for source, nucleotides in found.items()}


def items_of_pairs(pairs: pa.Table, groups: Sequence[RowGroup], content: Content) -> pa.Table:
    """Rows of the pairs' schema, from these row groups of one file, as rows to embed: with columns of BLOCK_SCHEMA."""
    columns = {
        **{name: pairs.column(name) for name in _TAKEN_OVER},
        "name": pc.coalesce(pairs.column("display_name"), pairs.column("name")),
        "length": pc.cast(pc.utf8_length(pairs.column("sequence")), pa.int32()),
        "sequence_hash": pairs.column("sequence_hash"),
        "text": pa.array(biotexts(pairs) if content == "text" else [None] * len(pairs), pa.string()),
        "source": pa.array([groups[0].path] * len(pairs), pa.string()),
        "line": row_numbers(groups),
    }
    return pa.table(columns)


def row_numbers(groups: Sequence[RowGroup]) -> np.ndarray:
    """Where the rows of some row groups of one file stand in it, from 1."""
    footer = read_metadata(groups[0].path)
    ends = np.cumsum([footer.row_group(i).num_rows for i in range(footer.num_row_groups)])
    starts = [ends[group.index] - footer.row_group(group.index).num_rows for group in groups]
    return np.concatenate([np.arange(start, ends[g.index]) for start, g in zip(starts, groups, strict=True)]) + 1


def _pairs_block(groups: Sequence[RowGroup], number: int) -> BlockItem:
    return {
        "unit": part_name(number),
        "path": groups[0].path,
        "row_groups": [group.index for group in groups],
        "pairs": True,
        "rows": sum(group.num_rows for group in groups),
    }


def file_block(stem: str, number: int, *, repeats: bool = False) -> BlockItem:
    """The item of a block file."""
    path = f"{stem}.parquet"
    return {
        "unit": part_name(number),
        "path": path,
        "spent": path,
        "row_groups": [0],
        "pairs": False,
        "repeats": repeats,
    }


def repeats_stem(work: str, number: int) -> str:
    """Likewise, of a block of rows that repeat the value of an earlier one."""
    return files.join(work, "cut", f"repeats-{number:05d}")
