"""Folders of pairs for tests, written without curation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from protclip.hashing import hash64
from protclip.manifest import write_manifest
from protclip.protanno.shards import KIND, PROPERTIES, SCHEMA
from protclip.uniprot.entry import BadEntry, Entry

COUNTS: dict[str, Any] = {
    "read": 10,
    "kept": 6,
    "quarantined": 1,
    "quarantined_by_reason": {"no sequence": 1},
    "not_sampled_by_reason": {"below the coverage": 2},
    "repeated_accession": 1,
}
BEFORE = {"coverage": {"1/4": 0.5, "4/4": 0.5}, "existence": {"1": 0.25, "4": 0.75}}


def row(entry: Entry) -> dict[str, Any]:
    """The row of an entry that was kept whole."""
    columns = ("accession", "sequence", *PROPERTIES, "existence", "reviewed", "display_name", "organism", "organism_id")
    return {
        **{name: getattr(entry, name) for name in columns},
        "ec": list(entry.ec),
        "gene": list(entry.gene) or None,
        "sequence_hash": hash64(entry.sequence),
        "probability": 1.0,
    }


def write_pairs(folder: Path, shards: Mapping[str, Sequence[dict[str, Any]]], *, row_group_rows: int = 2) -> None:
    """Write a finished folder; the counts of its curation are COUNTS and BEFORE.

    Args:
        folder: to make.
        shards: file name without ending, such as ``train-00000-of-00001`` → rows.
        row_group_rows: of the shards.
    """
    folder.mkdir()
    names = [f"{name}.parquet" for name in shards]
    for name, rows in zip(names, shards.values(), strict=True):
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), folder / name, row_group_size=row_group_rows)
    (folder / "quarantine.jsonl").write_text("")
    composition = {"before_sampling": BEFORE, "after_sampling": {}}
    write_manifest(
        str(folder),
        KIND,
        [*names, "quarantine.jsonl"],
        counts=COUNTS,
        composition=composition,
        settings={"sampling": {"draw": "once"}},
    )


def good(entries: Iterable[Entry | BadEntry]) -> list[Entry]:
    """Those that can be used."""
    return [entry for entry in entries if isinstance(entry, Entry)]
