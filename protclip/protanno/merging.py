"""One shard of the hash order: its rows merged, and at the end written into the folder of pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.manifest import describe
from protclip.parquet import read_own_table
from protclip.protanno import minhash
from protclip.protanno.biotext import biotext
from protclip.protanno.reading import ROW_SCHEMA, SORT_KEYS, CurationConfig
from protclip.protanno.sampling import is_drawn
from protclip.protanno.shards import PROPERTIES, SCHEMA, SPLITS
from protclip.protanno.splits import merit, read_splits


@dataclass(kw_only=True, slots=True)
class MergeReport:
    """What was merged of one shard; all fields are JSON values."""

    num_rows: int = 0
    num_repeated: int = 0
    """Rows left out because their accession came more than once."""


@dataclass(kw_only=True, slots=True)
class ShardReport:
    """What was written of one shard; all fields are JSON values."""

    num_rows: dict[str, int] = field(default_factory=Counter)
    """By split."""
    coverage: dict[str, int] = field(default_factory=Counter)
    """Rows by properties present."""
    existence: dict[str, int] = field(default_factory=Counter)
    """Rows by protein existence."""
    num_without_text: int = 0
    """Rows without any property."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name in the folder → size and checksum, as the manifest has them."""


def merge_shard(shard: int, num_shards: int, units: Sequence[str], stem: str, config: CurationConfig) -> MergeReport:
    """Merge one shard's rows of all units of reading.

    Rows are sorted by (hash(seed, accession), accession). Of rows with one accession the reviewed one is kept, then
    that with the longer sequence, then with the longer text, then the first by value.

    Args:
        shard: from 0.
        num_shards: in all.
        units: the files that ``read_unit`` wrote, in any order.
        stem: of the unit's files: STEM.parquet has the rows, STEM.keys.parquet what ``split_rows`` needs of them, and
            STEM.npy their signatures, where splits are made by them.
        config: as for ``read_unit``.
    """
    width = -(-(1 << 64) // num_shards)
    low, high = (pa.scalar(value, pa.uint64()) for value in (shard * width, min((shard + 1) * width, 1 << 64) - 1))
    range_filter = (pc.field("order") >= low) & (pc.field("order") <= high)
    tables = [ROW_SCHEMA.empty_table(), *(read_own_table(path, filters=range_filter) for path in units)]
    table = pa.concat_tables(tables).sort_by(SORT_KEYS)
    keep = _first_of_each_accession(table)
    num_repeated = table.num_rows - len(keep)
    table = table.take(pa.array(keep, pa.int64())).select(SCHEMA.names)
    keys = table.select(["accession", "sequence_hash"]).append_column("merit", pa.array(merit(table), pa.uint64()))
    if config.split.method == "minhash":
        with files.atomic_write(f"{stem}.npy") as stream:
            np.save(stream, minhash.signatures(table["sequence"].to_pylist()))
    for name, part in ((f"{stem}.keys.parquet", keys), (f"{stem}.parquet", table)):
        with files.atomic_write(name) as stream:
            pq.write_table(part, stream)
    return MergeReport(num_rows=table.num_rows, num_repeated=num_repeated)


def finish_shard(
    shard: int, num_shards: int, merged: str, splits: str, folder: str, config: CurationConfig
) -> ShardReport:
    """Write one shard into the folder of pairs; a split without rows in this shard gets no file.

    Args:
        shard: from 0.
        num_shards: in all.
        merged: the rows that ``merge_shard`` wrote.
        splits: what ``split_rows`` says of them.
        folder: the output folder.
        config: as for ``read_unit``.
    """
    report = ShardReport()
    table = read_own_table(merged)
    codes = read_splits(splits)
    if config.sampling.draw == "each-epoch":  # what a model is measured on stays the same
        columns = (table.column(name).to_pylist() for name in ("accession", "probability"))
        drawn = np.array([is_drawn(accession, p, config.seed) for accession, p in zip(*columns, strict=True)])
        codes = np.where(drawn | (codes == SPLITS.index("train")), codes, -1)
    for code, split in enumerate(SPLITS):
        rows = table.filter(pa.array(codes == code))
        report.num_rows[split] = rows.num_rows
        if rows.num_rows:
            name = f"{split}-{shard:05d}-of-{num_shards:05d}.parquet"
            with files.atomic_write(files.join(folder, name)) as stream:
                pq.write_table(rows, stream, compression="zstd", row_group_size=config.row_group_rows)
            report.files[name] = describe(files.join(folder, name))
    table = table.filter(pa.array(codes >= 0))
    report.coverage = Counter(map(str, _num_properties(table).tolist()))
    report.num_without_text = int(
        np.logical_and.reduce([table[name].is_null().to_numpy() for name in PROPERTIES]).sum()
    )
    existence = table["existence"].to_pylist()
    report.existence = Counter("unknown" if value is None else str(value) for value in existence)
    return report


def _num_properties(table: pa.Table) -> np.ndarray:
    present = np.array([table[name].is_valid().to_numpy() for name in PROPERTIES[1:]], dtype=np.int64)
    number: np.ndarray = 1 + present.sum(axis=0)
    return number


def _first_of_each_accession(table: pa.Table) -> list[int]:
    """Indices of the kept rows of a sorted table, in its order."""
    accessions = table["accession"].to_pylist()
    kept = []
    for start, end in _runs(accessions):
        indices = range(start, end)
        kept.append(start if end - start == 1 else min(indices, key=lambda i: _preference(table, i)))
    return kept


def _runs(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            yield start, i
            start = i


def _preference(table: pa.Table, index: int) -> tuple[Any, ...]:
    """Smaller is better; it depends on the row alone, not on its place."""
    row = table.slice(index, 1).to_pylist()[0]
    text = biotext(*(row[name] for name in PROPERTIES))
    return not row["reviewed"], -len(row["sequence"]), -len(text), json.dumps(row, sort_keys=True)
