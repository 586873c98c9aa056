"""The folder of pairs: its schema, and how it is read.

PAIRS/
  train-00000-of-00004.parquet …     rows in the order of hash(seed, accession)
  valid-…, test-…                     the same for the other splits; a file without rows is not written
  quarantine.jsonl                    rows that could not be used, with the reason
  changes.parquet                     what has changed since a previous folder, where that was asked for
  manifest.json                       written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.checked import checked
from protclip.errors import DataError
from protclip.manifest import FILE_NAME, read_manifest
from protclip.parquet import open_parquet, valid

KIND = "pairs"
SPLITS = ("train", "valid", "test")
PROPERTIES = ("name", "function", "subcellular_location", "similarity")
"""The four properties of the biotext, in the paper's order; each a nullable column."""

SCHEMA = pa.schema(
    [
        pa.field("accession", pa.string(), nullable=False),
        pa.field("sequence", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in PROPERTIES),
        pa.field("existence", pa.int8()),
        pa.field("reviewed", pa.bool_()),
        pa.field("display_name", pa.string()),
        pa.field("organism", pa.string()),
        pa.field("organism_id", pa.int32()),
        pa.field("ec", pa.list_(pa.string()), nullable=False),
        pa.field("gene", pa.list_(pa.string())),
        pa.field("sequence_hash", pa.uint64(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
    ]
)
ADDED_COLUMNS = ("gene",)
"""Those that folders of earlier versions lack, which is as if all were null."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sampling:
    draw: Literal["once", "each-epoch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    sampling: _Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What the manifest of a folder of pairs has to say to training."""

    settings: _Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroup:
    """One parquet row group of a folder of pairs: the unit that is read."""

    path: str
    index: int
    num_rows: int


class Pairs:
    """A finished folder of pairs: its manifest is read once, a split's footers when they are first asked for."""

    def __init__(self, folder: str, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        """As ``protclip curate`` wrote it."""
        self.shards: dict[str, str] = {
            name: entry["sha256"]
            for name, entry in sorted(manifest["files"].items())
            if name.endswith(".parquet") and name.partition("-")[0] in SPLITS
        }
        """SHA-256 of each file that holds pairs, by its name in the folder."""
        self._row_groups: dict[str, tuple[RowGroup, ...]] = {}

    @property
    def fingerprint(self) -> str:
        """The identity of the pairs wherever they lie, 64 hexadecimal digits: a SHA-256 over those of the shards."""
        return hashlib.sha256(json.dumps(self.shards, sort_keys=True).encode()).hexdigest()

    @property
    def draws_each_epoch(self) -> bool:
        """True where the training pairs are all candidates of the sampling, of which each epoch draws its own.

        Raises:
            DataError: if the manifest does not say.
        """
        record = checked(_Record, self.manifest, files.join(self.folder, FILE_NAME))
        return record.settings.sampling.draw == "each-epoch"

    def row_groups(self, split: str) -> tuple[RowGroup, ...]:
        """The row groups of one split (of SPLITS), in the order of the shards.

        Raises:
            DataError: if a shard is damaged.
        """
        if split not in self._row_groups:
            paths = [files.join(self.folder, name) for name in self.shards if name.startswith(f"{split}-")]
            found = files.in_threads(_row_groups_of, paths)
            self._row_groups[split] = tuple(group for of_path in found for group in of_path)
        return self._row_groups[split]

    def num_rows(self, split: str) -> int:
        """How many pairs a split (of SPLITS) has.

        Raises:
            DataError: as ``row_groups``.
        """
        return sum(group.num_rows for group in self.row_groups(split))


def read_pairs(folder: str, *, verify: bool = False) -> Pairs:
    """Open a folder of pairs.

    Args:
        folder: path or URL.
        verify: compare every file's SHA-256, which reads all of them once, not its presence and size alone.

    Raises:
        DataError: if the folder is unfinished, damaged, or another kind of folder.
    """
    return Pairs(folder, read_manifest(folder, KIND, verify=verify))


def read_metadata(path: str) -> pq.FileMetaData:
    """A parquet file's footer.

    Raises:
        DataError: if it is not parquet, or lacks a column of the schema.
    """
    with open_parquet(path) as file:
        found = {name: SCHEMA.field(name).type for name in ADDED_COLUMNS}
        found |= {field.name: field.type for field in file.schema_arrow}
        if wrong := [field.name for field in SCHEMA if found.get(field.name) != field.type]:
            raise DataError(f"{path}: column {wrong[0]!r} is missing or of another type; make the folder again.")
        return file.metadata


def read_row_group(group: RowGroup, columns: list[str] | None = None) -> pa.Table:
    """One row group, with all its columns or the named ones.

    Raises:
        DataError: if it is damaged.
    """
    with open_parquet(group.path) as file:
        return valid(file.read_row_group(group.index, columns=columns))


def read_row_groups(path: str, indices: Sequence[int], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Several row groups of one file, one after the other; the footer, a megabyte or two, is read once.

    Raises:
        DataError: if it is damaged.
    """
    with open_parquet(path) as file:
        for index in indices:
            yield valid(file.read_row_group(index, columns=columns))


def first_rows(groups: Iterable[RowGroup], limit: int, columns: list[str]) -> Iterator[pa.Table]:
    """The first rows of row groups, at most so many, as a table of each group."""
    for group in groups:
        if limit <= 0:
            return
        rows = read_row_group(group, columns=columns).slice(0, limit)
        limit -= len(rows)
        yield rows


def _row_groups_of(path: str) -> list[RowGroup]:
    metadata = read_metadata(path)
    return [
        RowGroup(path=path, index=i, num_rows=metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)
    ]
