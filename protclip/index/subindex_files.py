"""The files of a subindex; they never change once written.

  segment-00000.hnsw      graph; label i is node i, a vector that one row has or several share (protclip.index.nodes)
  segment-00000.npy       only where the graph holds a few numbers of each vector (protclip.index.rotation): the whole
                          vectors (protclip.index.whole_vectors), by which the graph's candidates are compared
  segment-00000.parquet   each row: METADATA, whether it is live, the hash of its vector as it was embedded, its node,
                          and with which ef the graph finds that

A row that a later release removed or changed is not live.

R rows, N nodes, D dimension
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import METADATA
from protclip.errors import DataError
from protclip.index.hnsw import MAX_EF
from protclip.parquet import open_parquet, valid, with_column
from protclip.terminal import printable

_BEFORE_NODES = METADATA.append(pa.field("live", pa.bool_(), nullable=False)).append(
    pa.field("vector_hash", pa.uint64(), nullable=False)
)
ROWS = _BEFORE_NODES.append(pa.field("node", pa.int64(), nullable=False)).append(
    pa.field("found_with", pa.int32(), nullable=False)
)
_GENE = ROWS.get_field_index("gene")
_SCHEMAS = [
    (schema.names, schema.types) for schema in (ROWS, _BEFORE_NODES, _BEFORE_NODES.remove(_GENE))
]  # all but the first are of earlier versions
_PREFIX = "segment-"


def subindex_name(number: int) -> str:
    """The name of a subindex by its number, which is kept from release to release."""
    return f"{_PREFIX}{number:05d}"


def subindex_number(name: str) -> int:
    """The number of a subindex by its name."""
    return int(name.removeprefix(_PREFIX))


def graph_file(name: str) -> str:
    """The file of a subindex's graph."""
    return f"{name}.hnsw"


def vectors_file(name: str) -> str:
    """The file of a subindex's whole vectors, where the graph holds a few numbers of each."""
    return f"{name}.npy"


def rows_file(name: str) -> str:
    """The file of what is known of a subindex's rows."""
    return f"{name}.parquet"


def subindex_files(name: str, *, is_compact: bool) -> list[str]:
    """All files of a subindex."""
    return [graph_file(name), *([vectors_file(name)] if is_compact else []), rows_file(name)]


def vector_hashes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A 64-bit hash of the bytes of each vector."""
    data = np.ascontiguousarray(vectors, "<f4")
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in data)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def rows_table(
    metadata: pa.Table,
    live_R: NDArray[np.bool_],
    hashes_R: NDArray[np.uint64],
    node_R: NDArray[np.int64],
    found_with_R: NDArray[np.int32],
) -> pa.Table:
    """A subindex's rows, with the columns ROWS."""
    return pa.table([*metadata.columns, *map(pa.array, (live_R, hashes_R, node_R, found_with_R))], schema=ROWS)


def write_rows(path: str, rows: pa.Table) -> None:
    """Write a subindex's rows."""
    with files.atomic_write(path) as stream:
        pq.write_table(rows, stream, compression="zstd")


def read_rows(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a subindex's rows, or some columns of them.

    Where an earlier version wrote them genes are null, and each row is a node of its own that the graph finds.

    Raises:
        DataError: if it is no such file.
    """
    with open_parquet(path) as file:
        schema = file.schema_arrow
        if (schema.names, schema.types) not in _SCHEMAS:
            raise DataError(f"{path}: has the columns {printable(', '.join(schema.names))}, not those of an index.")
        names = ROWS.names if columns is None else list(columns)
        table = valid(file.read([name for name in names if name in schema.names]))
        count = file.metadata.num_rows
    for name in table.column_names:
        if (missing := table[name].null_count) and not ROWS.field(name).nullable:
            raise DataError(f"{path}: {missing} rows have no {name}; make the index again.")
    table = with_column(table, ROWS.field(_GENE))
    for name, values in (("node", np.arange(count)), ("found_with", np.zeros(count, np.int32))):
        if name in names and name not in table.column_names:
            table = table.append_column(ROWS.field(name), pa.array(values))
    return table.select(names)


class SubindexReport(TypedDict):
    """What is known of a subindex that was written."""

    name: str
    rows: int
    live: int
    """Rows that are not removed or changed since."""
    nodes: int
    """Vectors, each once."""
    live_nodes: int
    """Those of live rows."""
    found_with: list[tuple[int, int]]
    """ef, upwards, and the nodes that the graph finds with no smaller one."""
    delta: bool
    """Whether a release added it."""
    files: dict[str, dict[str, Any]]
    """With their checksums."""
    redescribed: NotRequired[int]
    """Live rows of which anything but the vector changed; of one that was taken over."""


def counts_of(found_with_N: NDArray[np.int32]) -> list[tuple[int, int]]:
    """``SubindexReport``'s ``found_with``."""
    efs, counts = np.unique(found_with_N, return_counts=True)
    return list(zip(efs.tolist(), counts.tolist(), strict=True))


def num_unreached(found_with: Sequence[tuple[int, int]], ef: int) -> int:
    """Nodes that a graph does not find with an ef, of a report's ``found_with``."""
    efs, counts = np.array(found_with).T
    return int(counts[is_unreached(efs, ef)].sum())


def is_unreached(found_with: NDArray[Any], ef: int) -> NDArray[np.bool_]:
    """Whether the graph does not find what it finds with these values of ef, or MAX_EF, when it has another.

    The least that was tried stands for all below it: a release may be given a smaller one than the last.
    """
    tried = found_with[found_with < MAX_EF]
    unreached: NDArray[np.bool_] = found_with > max(ef, int(tried.min()) if len(tried) else 0)
    return unreached
