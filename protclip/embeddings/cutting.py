"""Cut the inputs of ``protclip embed`` into chunk files (``protclip.embeddings.chunks``), in their order."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.data.seen import DistinctKeys
from protclip.embeddings.chunks import CHUNK_SCHEMA, CUT_FILE, chunk_stem, file_chunk, part_name, repeats_stem
from protclip.embeddings.inputs import Inputs, read_rows
from protclip.embeddings.reading import Content
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.units import Item


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
        stem = (repeats_stem if is_repeats else chunk_stem)(work, num_repeats if is_repeats else num_chunks)
        if is_repeats or part_name(num_chunks) not in done:
            with files.telling_what_cannot_be_written(work):
                _write_chunk(stem, rows, bad)
            if rows and not is_repeats:
                yield file_chunk(stem, num_chunks)
        num_rows += len(rows)
        if is_repeats:
            num_repeats += 1
        else:
            num_chunks += bool(rows)
    counts = {"chunks": num_chunks, "repeats": num_repeats, "rows": num_rows}
    with files.telling_what_cannot_be_written(work):
        files.write_json(files.join(work, CUT_FILE), counts)
    yield {"total": num_rows}


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
