"""A subindex of an index: a graph over some rows and what is known of them. Its files never change once written.

  segment-00000.hnsw      graph and vectors; label i is row i
  segment-00000.parquet   row i: METADATA, whether it is live, and the hash of its vector as it was embedded

A row that a later release removed or changed is not live: it stays in the graph, as a way to others, and is no answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import hnswlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import METADATA
from protclip.errors import DataError
from protclip.index.exact import exact_search
from protclip.index.hnsw import check_unit_vectors, load_graph, search_graph, stored_vectors
from protclip.parquet import open_parquet, valid, with_column
from protclip.terminal import printable

ROWS = METADATA.append(pa.field("live", pa.bool_(), nullable=False)).append(
    pa.field("vector_hash", pa.uint64(), nullable=False)
)
_GENE = ROWS.get_field_index("gene")
_SCHEMAS = [(schema.names, schema.types) for schema in (ROWS, ROWS.remove(_GENE))]  # the second is of earlier versions
EXACT_ROWS = 10_000
"""Among so few rows each question is answered by exact search: at D = 512 in some 2 ms, and it misses nothing."""
ROW_BYTES = 600
"""Memory of what is known of a row, about, with room for the text of one."""
GRAPH_COST = 20
"""Vectors that an exact search compares in the time in which a graph gives one more answer."""
SPARE = 1.2
"""What more is asked of the graph than should be needed where some rows may not answer."""


def graph_file(name: str) -> str:
    """The file of a subindex's graph and vectors."""
    return f"{name}.hnsw"


def rows_file(name: str) -> str:
    """The file of what is known of a subindex's rows."""
    return f"{name}.parquet"


def vector_hashes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A 64-bit hash of the bytes of each vector."""
    data = np.ascontiguousarray(vectors, "<f4")
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in data)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def write_rows(path: str, metadata: pa.Table, live: NDArray[np.bool_], hashes: NDArray[np.uint64]) -> None:
    """Write a subindex's rows."""
    columns = [*metadata.columns, pa.array(live), pa.array(hashes)]
    with files.atomic_write(path) as stream:
        pq.write_table(pa.table(columns, schema=ROWS), stream, compression="zstd")


def read_rows(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a subindex's rows, or some columns of them; genes, where an earlier version wrote it, are null.

    Raises:
        DataError: if it is no such file.
    """
    with open_parquet(path) as file:
        schema = file.schema_arrow
        if (schema.names, schema.types) not in _SCHEMAS:
            raise DataError(f"{path}: has the columns {printable(', '.join(schema.names))}, not those of an index.")
        names = ROWS.names if columns is None else list(columns)
        table = valid(file.read([name for name in names if name in schema.names]))
        return with_column(table, ROWS.field(_GENE)).select(names)


class SubindexReport(TypedDict):
    """What is known of a subindex that was written."""

    name: str
    rows: int
    live: int
    """Rows that are not removed or changed since."""
    delta: bool
    """Whether a release added it."""
    files: dict[str, dict[str, Any]]
    """With their checksums."""
    redescribed: NotRequired[int]
    """Live rows of which anything but the vector changed; of one that was taken over."""


class Subindex:
    """A loaded subindex; it never changes, so searches may run side by side."""

    def __init__(self, vectors: NDArray[np.float32], rows: pa.Table, graph: hnswlib.Index | None) -> None:
        """Args are the vectors by row, the columns METADATA and live, and the graph where one is loaded."""
        self.vectors = vectors
        self.metadata = rows.select(METADATA.names)
        self.graph = graph
        self.live = rows["live"].to_numpy()
        """(rows,), whether each may answer."""
        self.num_live = int(self.live.sum())
        self._mask = None if self.num_live == len(self.live) else self.live

    @classmethod
    def load(
        cls,
        folder: str,
        name: str,
        *,
        rows: int,
        dimension: int,
        ef_search: int,
        with_graph: bool | None = None,
        num_threads: int | None = None,
    ) -> Subindex:
        """Load a subindex from a local folder; all of it is read once, and checked, whatever its checksums say.

        Args:
            folder: of the files; what is large stays in the graph's file, which must not be changed in place.
            name: of the subindex.
            rows: that it must have.
            dimension: that it must have.
            ef_search: of the graph.
            with_graph: whether the graph is loaded; None where it is larger than exact search likes.
            num_threads: of a search of many queries in the graph; None for all cores.

        Raises:
            DataError: if the files do not fit together.
        """
        path = files.join(folder, graph_file(name))
        vectors = stored_vectors(path, dimension=dimension, count=rows)
        check_unit_vectors(vectors, path)
        graph = None
        if with_graph or (with_graph is None and rows > EXACT_ROWS):
            graph = load_graph(path, dimension=dimension, count=rows, ef_search=ef_search)
            if num_threads is not None:
                graph.set_num_threads(num_threads)
        else:
            vectors = np.array(vectors)
        table = read_rows(files.join(folder, rows_file(name)), [*METADATA.names, "live"])
        if len(table) != rows:
            raise DataError(f"{folder}: {name} has {rows} vectors and {len(table)} rows; make the index again.")
        return cls(vectors, table, graph)

    def __len__(self) -> int:
        """Rows, live or not."""
        return len(self.vectors)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        exact: bool | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest live rows of each query, best first.

        Args:
            queries: (n, dimension), finite unit vectors.
            k: 1 or more.
            allowed: (rows,), where only some may answer.
            exact: whether all are compared; None where that costs least or few may answer.

        Returns:
            cosines and rows, each of shape (n, min(k, rows that may answer)).
        """
        mask = self._mask if allowed is None else allowed if self._mask is None else self._mask & allowed
        count = len(self) if mask is None else int(mask.sum())
        k = min(k, count)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        fetch = k if mask is None else min(len(self), self._fetch(k, count))
        few = count <= max(EXACT_ROWS, GRAPH_COST * fetch)
        if self.graph is None or exact or (exact is None and few):
            assert exact is not False or self.graph is not None
            rows = None if mask is None else np.flatnonzero(mask)
            return exact_search(self.vectors, queries, k, rows=rows, tie_break=self.tie_break)
        if mask is None:
            return search_graph(self.graph, self.vectors, queries, k)
        return self._search_masked(queries, k, mask, fetch)

    def _fetch(self, k: int, count: int) -> int:
        """What is asked of the graph for k answers among ``count`` rows.

        It keeps as many candidates as are asked for. Of the candidates those that may answer should be as many as
        there are without a mask: with fewer the recall would fall below the measured one.
        """
        kept = SPARE * k + 4 if self.graph is None else max(SPARE * k + 4, self.graph.ef)
        return math.ceil(kept * len(self) / count)

    def _search_masked(
        self, queries: NDArray[np.float32], k: int, mask: NDArray[np.bool_], fetch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Ask the graph for more than k, drop what may not answer, and ask again those that are left with too few."""
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        open_ = np.arange(len(queries))
        while len(open_):
            if fetch >= len(self):
                scores[open_], rows[open_] = exact_search(self.vectors, queries[open_], k, rows=np.flatnonzero(mask))
                break
            found_scores, found = search_graph(self.graph, self.vectors, queries[open_], fetch)
            good = mask[found]
            enough = good.sum(axis=1) >= k
            # Stable, so that what may answer comes first and in its order.
            order = np.argsort(~good[enough], axis=1, kind="stable")[:, :k]
            scores[open_[enough]] = np.take_along_axis(found_scores[enough], order, 1)
            rows[open_[enough]] = np.take_along_axis(found[enough], order, 1)
            open_, fetch = open_[~enough], min(2 * fetch, len(self))
        return scores, rows

    def tie_break(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The order of rows by accession, which a row keeps in every release."""
        order = pc.sort_indices(self.metadata["accession"].take(pa.array(rows))).to_numpy()
        ranks = np.empty(len(rows), np.int64)
        ranks[order] = np.arange(len(rows))
        return ranks
