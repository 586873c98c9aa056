"""Exact search: the reference that the graph is measured against, and right at any size.

N vectors, Q queries, D dimension, K answers of each query
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 8_192
"""Vectors worked on at once: with 1,000 queries that is 32 MB of scores, and 512 numbers of each are 16 MB, which the
allocator keeps for the next. Of more than 32 MB it would ask the system for fresh pages each time."""
BLOCK_QUERIES = 1_000
MARGIN = 1e-5
"""More than a float32 product of unit vectors is off by; what is this close to the k-th is scored again."""


class Vectors(Protocol):
    """(N, D) float32: an array, or what becomes one as it is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.float32]: ...


TieBreak = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Rows to their order among equal scores."""


def exact_search(
    vectors_ND: Vectors,
    queries_QD: NDArray[np.float32],
    k: int,
    *,
    rows: NDArray[np.int64] | None = None,
    tie_break: TieBreak | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest cosines of each query, by score downwards, equal scores by row upwards.

    Candidates come from a float32 matrix product; their scores are then taken in float64 and rounded. So a score does
    not depend on where a vector stands, or in what company.

    Args:
        vectors_ND: unit vectors.
        queries_QD: unit vectors.
        k: answers wanted, 1 or more; with fewer vectors, all of them are returned.
        rows: where only these may answer: their numbers, upwards.
        tie_break: another order among equal scores.

    Returns:
        scores and rows, each of shape (Q, min(k, N)), N being ``len(rows)`` where rows are given.
    """
    assert k >= 1, k
    count = len(vectors_ND) if rows is None else len(rows)
    k = min(k, count)
    scores_QK = np.empty((len(queries_QD), k), np.float32)
    rows_QK = np.empty((len(queries_QD), k), np.int64)
    if not k:
        return scores_QK, rows_QK
    for first in range(0, len(queries_QD), BLOCK_QUERIES):
        queries = queries_QD[first : first + BLOCK_QUERIES]
        for i, candidates in enumerate(_candidates(vectors_ND, queries, k, rows), start=first):
            scores = _cosines(vectors_ND[candidates], queries_QD[i])
            keys = candidates
            if tie_break is not None and len(np.unique(scores)) < len(scores):
                keys = tie_break(candidates)
            order = np.lexsort((keys, -scores))[:k]
            scores_QK[i], rows_QK[i] = scores[order], candidates[order]
    return scores_QK, rows_QK


def _candidates(
    vectors_ND: Vectors, queries_QD: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
) -> list[NDArray[np.int64]]:
    """For each query the rows whose score may be among the k largest, upwards."""
    num_queries, count = len(queries_QD), len(vectors_ND) if rows is None else len(rows)
    scores_of = [np.empty(0, np.float32) for _ in range(num_queries)]
    rows_of = [np.empty(0, np.int64) for _ in range(num_queries)]
    lowest = np.full(num_queries, -np.inf, np.float32)
    for start in range(0, count, BLOCK_ROWS):
        chosen = None if rows is None else rows[start : start + BLOCK_ROWS]
        block = vectors_ND[start : start + BLOCK_ROWS] if chosen is None else vectors_ND[chosen]
        for i, scores in enumerate(queries_QD @ block.T):
            found = np.flatnonzero(scores >= lowest[i])
            if not len(found):
                continue
            scores_of[i] = np.concatenate([scores_of[i], scores[found]])
            rows_of[i] = np.concatenate([rows_of[i], found + start if chosen is None else chosen[found]])
            if (surplus := len(scores_of[i]) - k) > 0:
                lowest[i] = np.partition(scores_of[i], surplus)[surplus] - MARGIN
                kept = scores_of[i] >= lowest[i]
                scores_of[i], rows_of[i] = scores_of[i][kept], rows_of[i][kept]
    return rows_of


def _cosines(vectors_ND: NDArray[np.float32], query_D: NDArray[np.float32]) -> NDArray[np.float32]:
    query = query_D.astype(np.float64)
    query /= np.linalg.norm(query)
    # Not a matrix product: BLAS sums in another order at the edge of a matrix than inside.
    cosines: NDArray[np.float64] = (vectors_ND * query).sum(axis=1)
    return cosines.astype(np.float32)
