"""The HNSW graph of hnswlib, with its traps closed.

hnswlib 0.8 takes NaN, overwrites a label in silence, returns from a save to a full disk as if it had worked, loads a
file of another dimension or with flipped bytes, crashes on damaged neighbour lists, and forgets ef on load. So
vectors are checked before they go in, labels are the row numbers, a saved file is read back and compared, its
checksum is verified by the caller before it is loaded, and a graph is never changed after it was built.

    N vectors, Q queries, D dimension, K answers of each query
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from protclip.errors import ConfigError, DataError
from protclip.index.exact import BLOCK_ROWS, exact_search, exact_search_blocks

SPACE = "cosine"
UNIT_TOLERANCE = 1e-3
"""How far a length may be from 1: bfloat16 embeddings are within it, raw hidden states are not."""

# offset_level0, max_elements, count, bytes per element, label offset, data offset, max level, entry point, max M,
# max M at level 0, M: the head of hnswlib's file.
_HEADER = struct.Struct("<6QiI3Q")


@dataclass(frozen=True, kw_only=True, slots=True)
class HnswConfig:
    """Settings of the graph; recall rises with each of them, and so does its cost."""

    m: int = 16
    """Links of a vector per level: memory is about 8 * m bytes a vector, beside the vector itself."""
    ef_construction: int = 200
    """Candidates kept while inserting: the build's time is proportional to it."""
    ef_search: int = 128
    """Candidates kept while searching: a query's time is proportional to it."""
    seed: int = 0
    """Seed of the levels; with one thread, the same vectors give the same graph."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("m", self.m, 2, 256),
            ("ef_construction", self.ef_construction, 1, 100_000),
            ("ef_search", self.ef_search, 1, 100_000),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not low <= value <= high:
                raise ConfigError(f"index.{name}={value}; allowed are {low} to {high}.")


def check_unit_vectors(vectors_ND: NDArray[np.float32], where: str) -> None:
    """Refuse what is no set of finite unit vectors.

    Raises:
        DataError: naming the first bad row after ``where``.
    """
    if vectors_ND.ndim != 2 or 0 in vectors_ND.shape:
        raise DataError(f"{where}: has shape {vectors_ND.shape}; an index needs at least one vector.")
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        block = vectors_ND[start : start + BLOCK_ROWS]
        norms = np.linalg.norm(block, axis=1)  # NaN or infinite exactly where an element is
        bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))
        if len(bad):
            row = start + int(bad[0])
            state = f"has length {norms[bad[0]]:.4f}" if np.isfinite(norms[bad[0]]) else "holds NaN or infinity"
            raise DataError(
                f"{where}, row {row}: the embedding {state}; finite vectors of length 1 are allowed. "
                "Make the embeddings again."
            )


def build_graph(vectors_ND: NDArray[np.float32], config: HnswConfig) -> hnswlib.Index:
    """Insert the vectors; the label of a vector is its row.

    One thread, because the order of insertion is part of the graph: the same input gives the same file.
    """
    count, dimension = vectors_ND.shape
    graph = hnswlib.Index(space=SPACE, dim=dimension)
    graph.init_index(max_elements=count, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
    graph.add_items(vectors_ND, np.arange(count), num_threads=1)
    graph.set_ef(config.ef_search)
    return graph


def save_graph(graph: hnswlib.Index, path: str) -> None:
    """Write the graph to a local file and prove it by reading it back: hnswlib reports no failed write.

    Raises:
        ConfigError: if what the disk holds is not what was written.
    """
    try:
        graph.save_index(path)
        written = Path(path).stat().st_size if Path(path).exists() else 0
        expected = graph.index_file_size()
        if written != expected:
            raise ConfigError(f"{path}: {written} of {expected} bytes were written; is the disk full or read-only?")
        again = load_graph(path, dimension=graph.dim, count=graph.element_count, ef_search=graph.ef)
    except (RuntimeError, OSError, DataError) as error:
        raise ConfigError(f"{path}: the index cannot be written there ({error}).") from error
    blocks = zip(stored_vectors(graph), stored_vectors(again), strict=True)
    if not all(np.array_equal(one, other) for one, other in blocks):
        raise ConfigError(f"{path}: what was read back differs from what was written; check the disk.")


def load_graph(path: str, *, dimension: int, count: int, ef_search: int) -> hnswlib.Index:
    """Load a graph whose checksum was verified by the caller: hnswlib crashes on a damaged one.

    Raises:
        DataError: if the file holds another number of vectors or another dimension.
    """
    found_count, found_dimension = _read_header(path)
    if (found_count, found_dimension) != (count, dimension):
        raise DataError(
            f"{path}: holds {found_count} vectors of dimension {found_dimension}, expected {count} of {dimension}; "
            "its manifest belongs to another index. Make the index again."
        )
    graph = hnswlib.Index(space=SPACE, dim=dimension)
    try:
        graph.load_index(path)
    except RuntimeError as error:
        raise DataError(f"{path}: is not an HNSW graph ({error}); make the index again.") from error
    graph.set_ef(ef_search)
    return graph


def search_graph(
    graph: hnswlib.Index, queries_QD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k nearest by cosine, by score downwards, equal scores by row upwards.

    Args:
        queries_QD: finite vectors of the graph's dimension.
        k: 1 to the number of vectors.
    """
    if not len(queries_QD):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    try:
        labels, distances = graph.knn_query(queries_QD, k=k)
    except RuntimeError:
        # From the entry point, fewer than k vectors can be reached for some query: many equal vectors, or k near
        # the count. Only such a query is answered by exact search, so that company never changes an answer.
        if len(queries_QD) == 1:
            return exact_search_blocks(stored_vectors(graph), queries_QD, k)
        answers = [search_graph(graph, query[None], k) for query in queries_QD]
        return np.concatenate([scores for scores, _ in answers]), np.concatenate([rows for _, rows in answers])
    scores = (1 - distances).astype(np.float32)
    rows = labels.astype(np.int64)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def stored_vectors(graph: hnswlib.Index) -> Iterator[NDArray[np.float32]]:
    """The graph's own vectors, block by block, in the order of their rows."""
    for start in range(0, graph.element_count, BLOCK_ROWS):
        labels = np.arange(start, min(start + BLOCK_ROWS, graph.element_count))
        yield np.asarray(graph.get_items(labels, return_type="numpy"), np.float32)


def measure_recall(
    graph: hnswlib.Index, vectors_ND: NDArray[np.float32], *, k: int, max_queries: int, seed: int
) -> tuple[float | None, int]:
    """Recall at k against exact search, over a seeded sample of the vectors, each without itself.

    An answer counts when its score reaches the exact k-th, so that among equal vectors any will do.

    Returns:
        the mean recall, None where there is a single vector and so nothing to find, and the number of queries.
    """
    count = len(vectors_ND)
    k = min(k, count - 1)
    if k == 0:
        return None, 0
    own = np.sort(np.random.default_rng(seed).choice(count, size=min(max_queries, count), replace=False))
    queries = vectors_ND[own]
    exact_scores, exact_rows = exact_search(vectors_ND, queries, k + 1)
    _, found_rows = search_graph(graph, queries, k + 1)
    hits = 0
    for i, row in enumerate(own):
        worst = exact_scores[i][exact_rows[i] != row][k - 1]
        found = found_rows[i][found_rows[i] != row][:k]
        hits += int(np.sum(vectors_ND[found] @ queries[i] >= worst - 1e-6))
    return hits / (k * len(own)), len(own)


def _read_header(path: str) -> tuple[int, int]:
    """The number of vectors and their dimension, from the head of hnswlib's file."""
    with Path(path).open("rb") as stream:
        head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise DataError(f"{path}: is too short for an HNSW graph; make the index again.")
    _, _, count, _, label_offset, data_offset, *_ = _HEADER.unpack(head)
    return count, (label_offset - data_offset) // 4  # float32
