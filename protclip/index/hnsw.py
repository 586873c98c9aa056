"""The HNSW graph of hnswlib, with its traps closed.

hnswlib 0.8 takes NaN, overwrites a label in silence, returns from a save to a full disk as if it had worked, loads a
file of another dimension or with flipped bytes, crashes on damaged neighbour lists, and forgets ef on load. So
vectors are checked before they go in, labels are the row numbers, a saved file is read back and compared, all its links
are checked before hnswlib loads it (protclip.index.hnsw_file), and a graph is never changed after it was built.

    N vectors, Q queries, D dimension, K answers of each query
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from protclip.errors import ConfigError, DataError
from protclip.fields import check_number, check_types
from protclip.index.exact import BLOCK_ROWS, Vectors, exact_search
from protclip.index.hnsw_file import check_graph, read_elements

SPACE = "cosine"
MAX_EF = 2**31 - 1
"""``found_with`` of a vector that the graph finds with no ef that was tried."""
UNIT_TOLERANCE = 1e-3
"""How far a length may be from 1: bfloat16 embeddings are within it, raw hidden states are not."""

_LINK_BYTES, _LABEL_BYTES, _FLOAT_BYTES = 4, 8, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class HnswConfig:
    """Settings of a graph; recall rises with the first two, and so does their cost."""

    m: int = 16
    """Links of a vector per level: memory is about 8 * m bytes a vector, beside the vector itself."""
    ef_construction: int = 200
    """Candidates kept while inserting: the build's time is proportional to it."""
    seed: int = 0
    """Seed of the graph's levels and of the recall samples; with one thread, the same vectors give the same graph."""

    def __post_init__(self) -> None:
        check_types("index.", self)
        check_number("index.m", self.m, at_least=2, at_most=256)
        check_number("index.ef_construction", self.ef_construction, at_least=1, at_most=100_000)
        check_number("index.seed", self.seed, at_least=0, at_most=2**63 - 1)


def graph_bytes(count: int, dimension: int, m: int) -> int:
    """Memory, and file, of a graph, about: 1/(M-1) of the vectors have links on a second level or higher."""
    element = _LINK_BYTES * (2 * m + 1) + _FLOAT_BYTES * dimension + _LABEL_BYTES
    return int(count * (element + 8 + _LINK_BYTES * (m + 1) / (m - 1)))


def check_unit_vectors(vectors_ND: Vectors, where: str) -> None:
    """Refuse what is no set of finite unit vectors.

    Raises:
        DataError: naming the first bad row after ``where``.
    """
    if len(vectors_ND.shape) != 2 or 0 in vectors_ND.shape:
        raise DataError(f"{where}: has shape {vectors_ND.shape}; an index needs at least one vector.")
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        block = vectors_ND[start : start + BLOCK_ROWS]
        norms = np.sqrt(np.einsum("nd,nd->n", block, block))  # NaN or infinite exactly where an element is
        bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))
        if len(bad):
            row = start + int(bad[0])
            state = f"has length {norms[bad[0]]:.4f}" if np.isfinite(norms[bad[0]]) else "holds NaN or infinity"
            raise DataError(
                f"{where}, row {row}: the embedding {state}; finite vectors of length 1 are allowed. "
                "Make the embeddings again."
            )


def start_graph(count: int, dimension: int, config: HnswConfig) -> hnswlib.Index:
    """An empty graph with room for so many vectors."""
    graph = hnswlib.Index(space=SPACE, dim=dimension)
    graph.init_index(max_elements=count, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
    graph.set_num_threads(1)
    return graph


def insert(graph: hnswlib.Index, vectors_ND: NDArray[np.float32]) -> None:
    """Insert the next rows; the label of a vector is its row.

    One thread, because the order of insertion is part of the graph: the same input gives the same file.
    """
    first = graph.element_count
    graph.add_items(vectors_ND, np.arange(first, first + len(vectors_ND)), num_threads=1)


def found_with(graph: hnswlib.Index, vectors_ND: NDArray[np.float32], efs: Sequence[int]) -> NDArray[np.int32]:
    """The smallest ef, of some that are tried, with which the graph finds each of its vectors, (N,).

    Args:
        graph: of the vectors; its ef is left at another value.
        vectors_ND: as they were inserted.
        efs: upwards. A vector that none of them finds has MAX_EF.
    """
    found_N = np.full(len(vectors_ND), MAX_EF, np.int32)
    open_ = np.arange(len(vectors_ND))
    for ef in efs:
        graph.set_ef(ef)
        for start in range(0, len(open_), BLOCK_ROWS):
            some = open_[start : start + BLOCK_ROWS]
            labels, _ = ask_graph(graph, vectors_ND[some], min(ef, len(vectors_ND)))
            found_N[some[(labels == some[:, None]).any(axis=1)]] = ef
        open_ = np.flatnonzero(found_N == MAX_EF)
    return found_N


def ask_graph(
    graph: hnswlib.Index, queries_QD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and distances of each query's k; labels -1 of a query for which the graph reaches fewer."""
    labels_QK = np.full((len(queries_QD), k), -1, np.int64)
    distances_QK = np.full((len(queries_QD), k), np.inf, np.float32)
    try:
        labels_QK[:], distances_QK[:] = graph.knn_query(queries_QD, k=k)
    except RuntimeError:
        # From the entry point, fewer than k vectors can be reached for some query; which, it does not say.
        if len(queries_QD) > 1:
            for i in range(len(queries_QD)):
                labels_QK[i : i + 1], distances_QK[i : i + 1] = ask_graph(graph, queries_QD[i : i + 1], k)
    return labels_QK, distances_QK


def save_graph(graph: hnswlib.Index, vectors_ND: NDArray[np.float32], path: str) -> None:
    """Write the graph to a local file and prove it by reading it back: hnswlib reports no failed write.

    Args:
        graph: of the vectors.
        vectors_ND: as they were inserted.
        path: the file; it is on the disk, and not only on its way there, when this returns.

    Raises:
        ConfigError: if what the disk holds is not what was written.
    """
    try:
        graph.save_index(path)
        written = Path(path).stat().st_size if Path(path).exists() else 0
        expected = graph.index_file_size()
        if written != expected:
            raise ConfigError(f"{path}: {written} of {expected} bytes were written; is the disk full or read-only?")
        with Path(path).open("rb") as stream:
            os.fsync(stream.fileno())
        _compare(path, vectors_ND)
        again = load_graph(path, dimension=graph.dim, count=graph.element_count, ef_search=10)
    except (RuntimeError, OSError, DataError) as error:
        raise ConfigError(f"{path}: the index cannot be written there ({error}).") from error
    graph.set_ef(10)
    some = vectors_ND[:: max(1, len(vectors_ND) // 10)]
    if not np.array_equal(search_graph(graph, vectors_ND, some, 1)[1], search_graph(again, vectors_ND, some, 1)[1]):
        raise ConfigError(f"{path}: what was read back answers otherwise than what was written; check the disk.")


def load_graph(path: str, *, dimension: int, count: int, ef_search: int) -> hnswlib.Index:
    """Load a graph from a local file, after all in it that hnswlib trusts was checked.

    Raises:
        DataError: if the file is no such graph, or another number of vectors or another dimension is in it.
    """
    check_graph(path, dimension=dimension, count=count)
    graph = hnswlib.Index(space=SPACE, dim=dimension)
    try:
        graph.load_index(path)
    except RuntimeError as error:
        raise DataError(f"{path}: is not an HNSW graph ({error}); make the index again.") from error
    graph.set_ef(ef_search)  # hnswlib would take 10
    return graph


def stored_vectors(path: str, *, dimension: int, count: int) -> NDArray[np.float32]:
    """The vectors (count, dimension) of a saved graph, normalised by hnswlib: a view of the file, by row.

    Raises:
        DataError: if the file is no such graph.
    """
    return read_elements(path, dimension=dimension, count=count).vectors


def search_graph(
    graph: hnswlib.Index, vectors_ND: Vectors, queries_QD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k nearest by cosine, by score downwards, equal scores by row upwards.

    Args:
        graph: of the vectors.
        vectors_ND: the same, for the queries that the graph cannot answer.
        queries_QD: finite vectors of the graph's dimension.
        k: 1 to the number of vectors in the graph.
    """
    if not len(queries_QD):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    labels, distances = ask_graph(graph, queries_QD, k)
    scores, rows = 1 - distances, labels
    # Many equal vectors, or k near the count; exact search answers such a query, and company never changes an answer.
    unanswered = rows[:, 0] < 0
    if unanswered.any():
        scores[unanswered], rows[unanswered] = exact_search(
            vectors_ND[: graph.element_count], queries_QD[unanswered], k
        )
    # hnswlib sorts by distance alone.
    if (tied := (scores[:, 1:] == scores[:, :-1]).any(axis=1)).any():
        order = np.lexsort((rows[tied], -scores[tied]), axis=1)
        scores[tied] = np.take_along_axis(scores[tied], order, 1)
        rows[tied] = np.take_along_axis(rows[tied], order, 1)
    return scores, rows


def _compare(path: str, vectors_ND: NDArray[np.float32]) -> None:
    """Raise ConfigError where a saved graph does not hold the vectors."""
    count, dimension = vectors_ND.shape
    stored = stored_vectors(path, dimension=dimension, count=count)
    for start in range(0, count, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        if np.abs(stored[part] - vectors_ND[part]).max() > UNIT_TOLERANCE:
            raise ConfigError(f"{path}: what was read back differs from what was written; check the disk.")
