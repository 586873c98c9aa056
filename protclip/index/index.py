"""The index folder, loaded and searched. It is made once, by protclip.index.build, and then only read.

INDEX/
  segment-00000.hnsw, segment-00000.parquet …    (protclip.index.subindex)
  rotation.npy, segment-00000.npy …              only of a compact index (protclip.index.rotation)
  manifest.json                                  written last: model, counts, settings, measured recall, checksums
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import METADATA
from protclip.errors import DataError, IndexMismatchError, RequestError
from protclip.index.filters import Filter, parse_filter
from protclip.index.hnsw import check_unit_vectors, graph_bytes
from protclip.index.manifest import IndexManifest, SubindexRecord, read_index_manifest
from protclip.index.rotation import ROTATION_FILE, Rotation, read_rotation
from protclip.index.subindex import EXACT_ROWS, ROW_BYTES, Subindex
from protclip.manifest import FILE_NAME

NOT_SHOWN = ("sequence_hash",)


class Index:
    """A loaded index; it never changes, so searches may run side by side.

    A row is counted through the subindexes, in the order of the manifest.
    """

    def __init__(self, manifest: IndexManifest, subindexes: Sequence[Subindex], *, first_subindex: int = 0) -> None:
        """Args are what the index is, its subindexes or consecutive ones of them, and the number of the first."""
        self.manifest = manifest
        self.subindexes = tuple(subindexes)
        before = sum(record.rows for record in manifest.segments[:first_subindex])
        self._starts = before + np.cumsum([0, *(len(subindex) for subindex in subindexes)])

    @classmethod
    def load(cls, path: str, *, expect_fingerprint: str | None = None, subindexes: range | None = None) -> Index:
        """Verify an index against its checksums, then load it.

        Graphs are held in memory. Vectors for exact search are read from the files, through the system's cache; they
        must therefore not be written to in place, though they may be removed.

        Args:
            path: path or URL.
            expect_fingerprint: of the model that will make the queries; None where vectors are searched as they are.
            subindexes: numbers of those that are loaded and verified, where it is a part (``protclip.index.shards``);
                rows keep the numbers that they have in the whole. None for all.

        Raises:
            DataError: if it is unfinished, damaged, or not an index.
            IndexMismatchError: if another model made it.
        """
        with local_index(path, subindexes) as (folder, names):
            manifest = read_index_manifest(folder, verify=True, names=names)
            if expect_fingerprint is not None:
                manifest.check_model(expect_fingerprint, path)
            numbers = range(len(manifest.segments)) if subindexes is None else subindexes
            rotation = read_rotation(files.join(folder, ROTATION_FILE)) if manifest.is_compact else None
            if rotation is not None and rotation.axes_ED.shape != (manifest.width, manifest.dimension):
                raise DataError(
                    f"{path}: its {ROTATION_FILE} has {rotation.axes_ED.shape[0]} axes of {rotation.axes_ED.shape[1]} "
                    f"numbers, and its manifest says {manifest.width} of {manifest.dimension}; make the index again."
                )
            loaded = [load_subindex(folder, manifest.segments[number], manifest, rotation) for number in numbers]
        return cls(manifest, loaded, first_subindex=numbers.start)

    def __len__(self) -> int:
        """Rows that may answer."""
        return sum(subindex.num_live for subindex in self.subindexes)

    @property
    def fingerprint(self) -> str:
        """The identity of the index, 64 hexadecimal digits: the digest in its manifest."""
        return self.manifest.fingerprint

    def percentiles(
        self, scores: NDArray[np.float32], question: Literal["protein", "text"]
    ) -> NDArray[np.float64] | None:
        """``IndexManifest.percentiles``."""
        return self.manifest.percentiles(scores, question)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        where: Filter | str | None = None,
        exact: bool | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest vectors of each query, best first, equal scores by accession.

        Args:
            queries: (n, dimension), unit length, by the model that made the index.
            k: 1 or more; more than may answer gives all of it.
            where: which rows may answer: a filter, or its text, such as ``reviewed and length < 200``.
            exact: True compares all vectors. None leaves it to each subindex: exact where it is small, or the filter
                narrow; otherwise its graph, with the recall that the manifest says.

        Returns:
            cosines and rows, each of shape (n, min(k, rows that may answer)).

        Raises:
            IndexMismatchError: for queries of another dimension.
            RequestError: for a filter that cannot be read, naming the place in it, or a k below 1.
            DataError: for queries that are not finite unit vectors.
        """
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dimension:
            raise IndexMismatchError(
                f"queries have shape {queries.shape}, the index holds vectors of dimension {self.manifest.dimension}; "
                "use the model that made it."
            )
        if k < 1:
            raise RequestError(f"k={k}; 1 or more answers can be asked for.")
        if len(queries):
            check_unit_vectors(queries, "queries")
        where = parse_filter(where) if isinstance(where, str) else where
        answers = []
        for start, subindex in zip(self._starts, self.subindexes, strict=False):
            allowed = None if where is None else where.mask(subindex.metadata)
            scores, rows = subindex.search(queries, k, allowed=allowed, exact=exact)
            answers.append((scores, rows + start if start else rows))
        return merge(answers, k, lambda rows: self.table(rows, ())["accession"].to_pylist())

    def hits(
        self, query: NDArray[np.float32], k: int, *, where: Filter | str | None = None, exact: bool | None = None
    ) -> list[dict[str, Any]]:
        """The answer to one query (dimension,), best first: rank from 1, score (cosine), and the row's columns."""
        return self.hits_of_each(query[None], k, where=where, exact=exact)[0]

    def hits_of_each(
        self, queries: NDArray[np.float32], k: int, *, where: Filter | str | None = None, exact: bool | None = None
    ) -> list[list[dict[str, Any]]]:
        """``hits`` of each query of (n, dimension)."""
        scores, rows = self.search(queries, k, where=where, exact=exact)
        found = iter(self.rows(rows.ravel()))
        return [
            [{"rank": rank, "score": score, **next(found)} for rank, score in enumerate(line, start=1)]
            for line in scores.tolist()
        ]

    def rows(self, rows: Sequence[int] | NDArray[np.int64], columns: Sequence[str] | None = None) -> list[Any]:
        """What an answer shows of the given rows, in their order.

        Args:
            rows: their numbers.
            columns: of METADATA, beside the accession; None for all but the sequence hash.
        """
        return rows_of(self.table(np.asarray(rows, np.int64), columns))

    def table(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """``rows`` as a table."""
        shown = [
            name
            for name in METADATA.names
            if name == "accession" or (name not in NOT_SHOWN if columns is None else name in columns)
        ]
        return self._table(rows, shown)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of the given rows, (n, dimension)."""
        vectors_ND = np.empty((len(rows), self.manifest.dimension), np.float32)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            mine = numbers == number
            vectors_ND[mine] = self.subindexes[number].vectors(rows[mine] - self._starts[number])
        return vectors_ND

    def find(self, column: str, values: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows whose column is one of some values, and the number of that value, (n,) each; by one pass over all.

        Args:
            column: of METADATA, not a list.
            values: each once.
        """
        wanted = pa.array(values, METADATA.field(column).type)
        rows, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        if len(wanted):
            for start, subindex in zip(self._starts, self.subindexes, strict=False):
                number = pc.fill_null(pc.index_in(subindex.metadata[column], value_set=wanted), -1).to_numpy()
                found = np.flatnonzero((number >= 0) & subindex.live)
                rows.append(found + start)
                numbers.append(number[found].astype(np.int64))
        return np.concatenate(rows), np.concatenate(numbers)

    def _table(self, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
        if len(self.subindexes) == 1:
            return self.subindexes[0].metadata.select(columns).take(pa.array(rows - self._starts[0]))
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        tables = [self.subindexes[0].metadata.select(columns).slice(0, 0)]
        places = np.empty(len(rows), np.int64)
        done = 0
        for number in np.unique(numbers):
            mine = np.flatnonzero(numbers == number)
            metadata = self.subindexes[number].metadata.select(columns)
            tables.append(metadata.take(pa.array(rows[mine] - self._starts[number])))
            places[mine] = np.arange(done, done + len(mine))
            done += len(mine)
        return pa.concat_tables(tables).take(pa.array(places))


def merge(
    answers: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    k: int,
    accessions: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of what the parts of an index answered to the same queries, equal scores by accession.

    Args:
        answers: scores and rows of each part, (n, any) each, best first; in the order of the parts.
        k: answers wanted of each query.
        accessions: of rows.
    """
    if len(answers) == 1:
        scores, rows = answers[0]
    else:
        scores = np.concatenate([scores for scores, _ in answers], axis=1)
        rows = np.concatenate([rows for _, rows in answers], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    for i in np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1)):
        names = accessions(rows[i])
        by_name = sorted(range(len(names)), key=lambda j, i=i: (-scores[i, j], names[j]))  # type: ignore[misc]
        rows[i] = rows[i, by_name]
    return scores[:, :k], rows[:, :k]


def rows_of(table: pa.Table) -> list[Any]:
    """The rows of a table, by the names of its columns; faster than pyarrow's own, by a third of the whole."""
    names = table.column_names  # which arrow lists anew each time, for longer than a row takes
    columns = [column.to_pylist() for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def load_subindex(folder: str, record: SubindexRecord, manifest: IndexManifest, rotation: Rotation | None) -> Subindex:
    """Load a subindex of a verified local index folder."""
    subindex = Subindex.load(
        folder,
        record.name,
        nodes=record.num_nodes,
        dimension=manifest.dimension,
        ef_search=manifest.ef_search,
        rotation=rotation,
    )
    unreached = record.unreached if subindex.graph is None else len(subindex.unreached_U)
    for what, found, told in (
        ("rows", len(subindex), record.rows),
        ("live rows", subindex.num_live, record.live),
        ("vectors that the graph does not find", unreached, record.unreached),
    ):
        if found != told:
            raise DataError(
                f"{folder}: {record.name} has {found} {what}, its manifest says {told}; make the index again."
            )
    return subindex


def memory_bytes(manifest: IndexManifest) -> int:
    """Memory of a loaded index, about: its graphs and the vectors that they do not find, or the vectors of small
    subindexes, and what is known of rows."""

    def of_vectors(subindex: SubindexRecord) -> int:
        if subindex.num_nodes <= EXACT_ROWS:
            return 4 * manifest.dimension * subindex.num_nodes
        return graph_bytes(subindex.num_nodes, manifest.width, manifest.m) + 4 * manifest.dimension * subindex.unreached

    return sum(of_vectors(subindex) + ROW_BYTES * subindex.rows for subindex in manifest.segments)


@contextlib.contextmanager
def local_index(path: str, subindexes: range | None) -> Iterator[tuple[str, list[str]]]:
    """The folder itself, or a copy of a URL's on the local disk; what is mapped of it outlives its removal.

    Args:
        path: path or URL.
        subindexes: numbers of those that are wanted; None for all.

    Returns:
        the folder, and the names of the wanted subindexes' files.
    """
    manifest = read_index_manifest(path)  # presence and sizes, before anything is fetched
    wanted = manifest.segments if subindexes is None else [manifest.segments[number] for number in subindexes]
    names = manifest.files_of(wanted)
    if not files.is_url(path):
        yield path, names
        return
    with tempfile.TemporaryDirectory(prefix="protclip-index-") as folder:
        for name in [*names, FILE_NAME]:
            files.copy(files.join(path, name), f"{folder}/{name}")
        yield folder, names
