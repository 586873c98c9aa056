"""Cut the inputs of ``protclip embed`` into block files (``protclip.embeddings.blocks``), in their order."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.data.seen import DistinctKeys
from protclip.embeddings.blocks import BLOCK_SCHEMA, CUT_FILE, block_stem, file_block, part_name, repeats_stem
from protclip.embeddings.inputs import Inputs, read_rows
from protclip.embeddings.reading import Content
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.units import Item

BLOCK_BYTES = 128 << 20
"""Characters of a block's texts beyond which it ends before it has its rows: several times those of a block of
proteins. It bounds the memory that a cut and a part take."""


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
    """Cut the inputs into block files; gives the item of each but repeats, and at last the number of rows as ``total``.

    Args:
        done: the names of parts that are embedded; their blocks are passed over. Not what the folder says now: a cut
            that is called again has to give the same items.
        inputs: what is read.
        content: what is embedded of them.
        part_rows: of a block.
        work: the work folder.
        deduplicate: whether rows that repeat the value of an earlier one are set apart.

    Raises:
        DataError: if an input cannot be read to its end.
    """
    value = ("sequence" if content == "protein" else "text") if deduplicate else None
    num_blocks = num_repeats = num_rows = 0
    for rows, bad, is_repeats in _blocks(read_rows(inputs, content), part_rows, value):
        stem = (repeats_stem if is_repeats else block_stem)(work, num_repeats if is_repeats else num_blocks)
        if is_repeats or part_name(num_blocks) not in done:
            _write_block(stem, rows, bad)
            if rows and not is_repeats:
                yield file_block(stem, num_blocks)
        num_rows += len(rows)
        if is_repeats:
            num_repeats += 1
        else:
            num_blocks += bool(rows)
    counts = {"chunks": num_blocks, "repeats": num_repeats, "rows": num_rows}
    files.write_json(files.join(work, CUT_FILE), counts)
    yield {"total": num_rows}


def _write_block(stem: str, rows: list[dict[str, Any]], bad: list[BadEntry]) -> None:
    if bad:
        with files.atomic_write(f"{stem}.jsonl") as stream:
            stream.writelines(json.dumps(entry.record(), sort_keys=True).encode() + b"\n" for entry in bad)
    if rows:
        table = pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA)
        with files.atomic_write(f"{stem}.parquet") as stream:
            # One row group, whatever the number of rows.
            pq.write_table(table, stream, compression="zstd", row_group_size=len(rows))


def _blocks(
    stream: Iterable[dict[str, Any] | BadEntry], part_rows: int, value: str | None
) -> Iterator[tuple[list[dict[str, Any]], list[BadEntry], bool]]:
    """Rows of accessions that did not come before, so many at a time or BLOCK_BYTES, with what was refused on the way.

    Rows whose value (the column of that name) came before are set apart; the last number says whether these are such.
    """
    accessions, values = DistinctKeys(), DistinctKeys()
    rows: list[dict[str, Any]] = []
    repeats: list[dict[str, Any]] = []
    bad: list[BadEntry] = []
    # The first distinct value of each block.
    firsts = [0]
    size = size_of_repeats = num_distinct = 0
    for some in _bounded(stream, part_rows):
        good = [row for row in some if not isinstance(row, BadEntry)]
        is_new = accessions.number([row["accession"] for row in good])[1]
        kept = [row for row, new in zip(good, is_new, strict=True) if new]
        place = iter(() if value is None else zip(*values.number([row[value] for row in kept]), strict=True))
        new = iter(is_new)
        for item in some:
            if isinstance(item, BadEntry):
                bad.append(item)
                continue
            if not next(new):
                bad.append(_repeated(item))
                continue
            number, is_first = next(place, (0, True))
            if is_first:
                item["same_as"] = None
                rows.append(item)
                num_distinct += 1
                size += _size(item)
            else:
                item["same_as"] = bisect_right(firsts, int(number)) - 1
                repeats.append(item)
                size_of_repeats += _size(item)
            if len(rows) == part_rows or size > BLOCK_BYTES:
                yield rows, bad, False
                rows, bad, size = [], [], 0
                firsts.append(num_distinct)
            if len(repeats) == part_rows or size_of_repeats > BLOCK_BYTES:
                yield repeats, [], True
                repeats, size_of_repeats = [], 0
    if rows or bad:
        yield rows, bad, False
    if repeats:
        yield repeats, [], True


def _bounded(stream: Iterable[dict[str, Any] | BadEntry], num_rows: int) -> Iterator[list[dict[str, Any] | BadEntry]]:
    """The stream in lists of so many, or of fewer that are large."""
    some: list[dict[str, Any] | BadEntry] = []
    size = 0
    for item in stream:
        some.append(item)
        size += 0 if isinstance(item, BadEntry) else _size(item)
        if len(some) == num_rows or size > BLOCK_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _size(row: Mapping[str, Any]) -> int:
    """Characters of a row's texts."""
    return sum(
        len(value) if isinstance(value, str) else sum(map(len, value))
        for value in row.values()
        if isinstance(value, str | list)
    )


def _repeated(row: Mapping[str, Any]) -> BadEntry:
    refusal = RefusedError("repeated accession", row["accession"], "each accession once")
    return refusal.at(source=row["source"], line=row["line"], accession=row["accession"])
