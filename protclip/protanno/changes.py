"""What became of the entries of one folder of pairs in the next: added, changed, removed."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.hashing import hash64
from protclip.manifest import describe
from protclip.parquet import open_parquet
from protclip.protanno.biotext import biotext
from protclip.protanno.shards import PROPERTIES, read_pairs

CHANGES_FILE = "changes.parquet"
CHANGES = ("added", "changed", "removed")

_KEY_SCHEMA = pa.schema([("accession", pa.string()), ("sequence_hash", pa.uint64()), ("text_hash", pa.uint64())])
_CHANGE_SCHEMA = pa.schema(
    [
        pa.field("accession", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        # Null for what was added or removed.
        pa.field("sequence_changed", pa.bool_()),
        pa.field("text_changed", pa.bool_()),
    ]
)


@dataclass(kw_only=True, slots=True)
class ChangeReport:
    """How many entries are concerned; all fields are JSON values."""

    added: int = 0
    changed: int = 0
    """In their sequence, their text, or both."""
    sequence_changed: int = 0
    text_changed: int = 0
    removed: int = 0
    unchanged: int = 0
    file: dict[str, int | str] | None = None
    """Size and checksum of CHANGES_FILE."""


def write_changes(previous: str, shards: list[str], folder: str) -> ChangeReport:
    """Compare a finished folder of pairs with the shards of the next, and write CHANGES_FILE, sorted by accession.

    Two entries are one where their accessions are; sequence and biotext are compared by their hashes. It holds some 100
    bytes for each entry of both.

    Args:
        previous: the finished folder.
        shards: the files of the next.
        folder: where the file goes.

    Raises:
        DataError: if the previous folder is unfinished, damaged, or no folder of pairs.
    """
    before = _keys([files.join(previous, name) for name in read_pairs(previous).shards])
    joined = before.append_column("before", pa.array([True] * len(before), pa.bool_())).join(
        (after := _keys(shards)).append_column("after", pa.array([True] * len(after), pa.bool_())),
        "accession",
        join_type="full outer",
        right_suffix="_after",
    )
    is_before, is_after = joined["before"].is_valid(), joined["after"].is_valid()
    both = pc.and_(is_before, is_after)
    differs = {
        name: pc.if_else(both, pc.not_equal(joined[name], joined[f"{name}_after"]), None)
        for name in ("sequence_hash", "text_hash")
    }
    changed = pc.fill_null(pc.or_(*differs.values()), False)
    change = pc.if_else(pc.invert(is_before), "added", pc.if_else(pc.invert(is_after), "removed", "changed"))
    columns = [joined["accession"], change, *differs.values()]
    table = pa.table(columns, names=_CHANGE_SCHEMA.names).filter(pc.or_(pc.invert(both), changed))
    with files.atomic_write(files.join(folder, CHANGES_FILE)) as stream:
        pq.write_table(table.sort_by("accession").cast(_CHANGE_SCHEMA), stream, compression="zstd")
    counts = {item["values"].as_py(): item["counts"].as_py() for item in table["change"].value_counts()}
    return ChangeReport(
        **{name: counts.get(name, 0) for name in CHANGES},
        sequence_changed=pc.sum(table["sequence_changed"]).as_py() or 0,
        text_changed=pc.sum(table["text_changed"]).as_py() or 0,
        unchanged=(pc.sum(both).as_py() or 0) - counts.get("changed", 0),
        file=describe(files.join(folder, CHANGES_FILE)),
    )


def _keys(paths: list[str]) -> pa.Table:
    """Accession, sequence hash and text hash of all rows."""
    tables = [_KEY_SCHEMA.empty_table()]
    for path in paths:
        with open_parquet(path) as file:
            for batch in file.iter_batches(columns=["accession", "sequence_hash", *PROPERTIES]):
                texts = zip(*(batch.column(name).to_pylist() for name in PROPERTIES), strict=True)
                hashes = pa.array([hash64("text", biotext(*properties)) for properties in texts], pa.uint64())
                columns = [batch.column("accession"), batch.column("sequence_hash"), hashes]
                tables.append(pa.table(columns, schema=_KEY_SCHEMA))
    return pa.concat_tables(tables)
