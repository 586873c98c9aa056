"""Exact search: the reference that the graph is measured against, and right at any size.

N vectors, Q queries, D dimension, K answers of each query
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 16_384
"""Vectors scored at once: with 1,000 queries that is 64 MB of scores."""


def exact_search(
    vectors_ND: NDArray[np.float32], queries_QD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest dot products of each query, by score downwards, equal scores by row upwards.

    Args:
        vectors_ND: unit vectors, so that a dot product is a cosine.
        queries_QD: unit vectors.
        k: answers wanted, 1 or more; with fewer vectors, all of them are returned.

    Returns:
        scores and rows, each of shape (Q, min(k, N)).
    """
    return exact_search_blocks(_blocks(vectors_ND), queries_QD, k)


def exact_search_blocks(
    blocks: Iterable[NDArray[np.float32]], queries_QD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`exact_search` over vectors that come in blocks, in the order of their rows."""
    assert k >= 1, k
    num_queries = len(queries_QD)
    scores_QK = np.empty((num_queries, 0), np.float32)
    rows_QK = np.empty((num_queries, 0), np.int64)
    start = 0
    for block in blocks:
        rows = np.broadcast_to(np.arange(start, start + len(block)), (num_queries, len(block)))
        scores_QK, rows_QK = _largest(
            np.concatenate([scores_QK, queries_QD @ block.T], axis=1), np.concatenate([rows_QK, rows], axis=1), k
        )
        start += len(block)
    return scores_QK, rows_QK


def _largest(
    scores_QN: NDArray[np.float32], rows_QN: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of each line, sorted. Lines hold rows upwards among equal scores, which stable sorts keep."""
    k = min(k, scores_QN.shape[1])
    best_scores = np.empty((len(scores_QN), k), np.float32)
    best_rows = np.empty((len(scores_QN), k), np.int64)
    for i, scores in enumerate(scores_QN):
        # argpartition alone would choose freely among scores that tie with the k-th, so take them all and sort.
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold)
        order = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
        best_scores[i], best_rows[i] = scores[order], rows_QN[i, order]
    return best_scores, best_rows


def _blocks(vectors_ND: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        yield vectors_ND[start : start + BLOCK_ROWS]
