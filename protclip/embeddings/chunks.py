"""The units of work of ``protclip embed``: chunks of as many rows as a part has.

A folder of pairs is in row groups already. Other inputs are cut in their order into chunk files in the work
folder, while those that are there are embedded; a chunk file goes when its part is committed.

Where identical values are to be computed once, the chunks hold each at its first row, and the rows that repeat one go
into chunks of their own, whose parts come behind and are copied from the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.data.seen import DistinctKeys
from protclip.data.tokenize import biotexts
from protclip.embeddings.inputs import Inputs, read_rows
from protclip.embeddings.reading import METADATA, Content
from protclip.parquet import with_column
from protclip.protanno import shards
from protclip.protanno.shards import RowGroup, read_metadata, read_row_group
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.residues import Nucleotides, looks_like_nucleotides
from protclip.units import Item

CHUNK_SCHEMA = pa.schema(
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
"""In the work folder once the inputs were cut to their end: the number of chunks, of chunks of repeats, and of rows."""


def pairs_chunks(folder: str, part_rows: int) -> list[dict[str, Any]]:
    """The row groups of a folder of pairs as items of about so many rows each, never of two files."""
    chunks: list[dict[str, Any]] = []
    for split in reversed(shards.SPLITS):
        pending: list[shards.RowGroup] = []
        for group in shards.row_groups(folder, split):
            full = sum(waiting.num_rows for waiting in pending) + group.num_rows > part_rows
            if pending and (full or group.path != pending[0].path):
                chunks.append(_pairs_chunk(pending, len(chunks)))
                pending = []
            pending.append(group)
        if pending:
            chunks.append(_pairs_chunk(pending, len(chunks)))
    return chunks


def file_chunks(work: str) -> list[dict[str, Any]] | None:
    """The items of all chunk files, those of repeats behind the others; None where the inputs are not cut."""
    if not files.exists(files.join(work, CUT_FILE)):
        return None
    cut_to = files.read_json(files.join(work, CUT_FILE))
    first = [_file_chunk(chunk_stem(work, number), number) for number in range(cut_to["chunks"])]
    stems = (_repeats_stem(work, number) for number in range(cut_to["repeats"]))
    return first + [_file_chunk(stem, number, repeats=True) for number, stem in enumerate(stems, start=len(first))]


def chunk_stem(work: str, number: int) -> str:
    """Of a chunk's files: its rows (.parquet), and what could not be read among them (.jsonl)."""
    return files.join(work, "cut", f"{number:05d}")


def parts_folder(work: str) -> str:
    """Where the reports of the parts are."""
    return files.join(work, "parts")


def part_name(number: int) -> str:
    """The name of the unit that makes a part."""
    return f"{number:05d}"


def cut(
    _: Item,
    *,
    done: Collection[str],
    inputs: Inputs,
    content: Content,
    part_rows: int,
    work: str,
    deduplicate: bool,
) -> Iterator[Item]:
    """Cut the inputs into chunk files; gives the item of each but repeats, and at last the number of rows as ``total``.

    Args:
        done: the names of parts that are embedded; their chunks are passed over. Not what the folder says now: a cut
            that is called again has to give the same items.
        inputs: what is read.
        content: what is embedded of them.
        part_rows: of a chunk.
        work: the work folder.
        deduplicate: whether rows that repeat the value of an earlier one are set apart.

    Raises:
        DataError: if an input cannot be read to its end.
    """
    value = ("sequence" if content == "protein" else "text") if deduplicate else None
    num_chunks = num_repeats = num_rows = 0
    for rows, bad, is_repeats in _chunks(read_rows(inputs, content), part_rows, value):
        stem = (_repeats_stem if is_repeats else chunk_stem)(work, num_repeats if is_repeats else num_chunks)
        if is_repeats or part_name(num_chunks) not in done:
            with files.telling_what_cannot_be_written(work):
                _write_chunk(stem, rows, bad)
            if rows and not is_repeats:
                yield _file_chunk(stem, num_chunks)
        num_rows += len(rows)
        if is_repeats:
            num_repeats += 1
        else:
            num_chunks += bool(rows)
    counts = {"chunks": num_chunks, "repeats": num_repeats, "rows": num_rows}
    with files.telling_what_cannot_be_written(work):
        files.write_json(files.join(work, CUT_FILE), counts)
    yield {"total": num_rows}


def read_chunk(item: Mapping[str, Any], content: Content) -> pa.Table:
    """The rows of an item, with the columns of CHUNK_SCHEMA."""
    groups = [RowGroup(path=item["path"], index=i, num_rows=0) for i in item["row_groups"]]
    rows = with_column(pa.concat_tables([read_row_group(group) for group in groups]), METADATA.field("gene"))
    if not item["pairs"]:
        return rows
    return items_of_pairs(rows, groups, content)


def place_of(rows: pa.Table, i: int) -> dict[str, Any]:
    return {name: rows.column(name)[i].as_py() for name in ("source", "line", "accession")}


def count_nucleotides(rows: pa.Table) -> dict[str, dict[str, Any]]:
    """The proteins that look like DNA or RNA, as the fields of Nucleotides by source."""
    found: dict[str, Nucleotides] = {}
    names = ("source", "accession", "name", "sequence")
    for source, accession, name, sequence in zip(*(rows.column(column).to_pylist() for column in names), strict=True):
        if looks_like_nucleotides(sequence, name):
            found.setdefault(source, Nucleotides()).add(accession)
    return {source: asdict(nucleotides) for source, nucleotides in found.items()}


def items_of_pairs(pairs: pa.Table, groups: Sequence[RowGroup], content: Content) -> pa.Table:
    """Rows of the pairs' schema, from these row groups of one file, as rows to embed: with columns of CHUNK_SCHEMA."""
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


def _pairs_chunk(groups: Sequence[shards.RowGroup], number: int) -> dict[str, Any]:
    return {
        "unit": part_name(number),
        "path": groups[0].path,
        "row_groups": [group.index for group in groups],
        "pairs": True,
        "rows": sum(group.num_rows for group in groups),
    }


def _file_chunk(stem: str, number: int, *, repeats: bool = False) -> dict[str, Any]:
    path = f"{stem}.parquet"
    return {
        "unit": part_name(number),
        "path": path,
        "spent": path,
        "row_groups": [0],
        "pairs": False,
        "repeats": repeats,
    }


def _repeats_stem(work: str, number: int) -> str:
    return files.join(work, "cut", f"repeats-{number:05d}")


def _write_chunk(stem: str, rows: list[dict[str, Any]], bad: list[BadEntry]) -> None:
    if bad:
        with files.atomic_write(f"{stem}.jsonl") as stream:
            stream.writelines(json.dumps(entry.record(), sort_keys=True).encode() + b"\n" for entry in bad)
    if rows:
        table = pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)
        with files.atomic_write(f"{stem}.parquet") as stream:
            # One row group, whatever the number of rows.
            pq.write_table(table, stream, compression="zstd", row_group_size=len(rows))


def _chunks(
    stream: Iterable[dict[str, Any] | BadEntry], part_rows: int, value: str | None
) -> Iterator[tuple[list[dict[str, Any]], list[BadEntry], bool]]:
    """Rows of accessions that did not come before, so many at a time, with what was refused on the way.

    Rows whose value (the column of that name) came before are set apart; the last number says whether these are such.
    """
    stream = iter(stream)
    accessions, values = DistinctKeys(), DistinctKeys()
    rows: list[dict[str, Any]] = []
    repeats: list[dict[str, Any]] = []
    bad: list[BadEntry] = []
    while some := list(islice(stream, part_rows)):
        good = [row for row in some if not isinstance(row, BadEntry)]
        is_new = accessions.number([row["accession"] for row in good])[1]
        if value is not None:
            kept = [row for row, new in zip(good, is_new, strict=True) if new]
            numbers, is_first = values.number([row[value] for row in kept])
            for row, number, first in zip(kept, numbers.tolist(), is_first, strict=True):
                row["same_as"] = None if first else number // part_rows
        new = iter(is_new)
        for item in some:
            if isinstance(item, BadEntry):
                bad.append(item)
            elif not next(new):
                bad.append(_repeated(item))
            else:
                (rows if item.get("same_as") is None else repeats).append(item)
            if len(rows) == part_rows:
                yield rows, bad, False
                rows, bad = [], []
            if len(repeats) == part_rows:
                yield repeats, [], True
                repeats = []
    if rows or bad:
        yield rows, bad, False
    if repeats:
        yield repeats, [], True


def _repeated(row: Mapping[str, Any]) -> BadEntry:
    refusal = RefusedError("repeated accession", row["accession"], "each accession once")
    return refusal.at(source=row["source"], line=row["line"], accession=row["accession"])
