"""Rows that share a vector are one node of a graph: as many nodes they would fill each other's lists of neighbours, and
other rows could no longer be found.

The rows of a node stand together in a subindex, in the order of their accessions.

R rows, N nodes, Q queries, K answers of each query
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protclip.index.exact import BLOCK_ROWS

Order = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Rows to their ranks by accession."""


def group_equal(vectors_RD: NDArray[np.float32], hashes_R: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The node of each row, (R,), numbered in the order in which their vectors come first.

    Args:
        vectors_RD: vectors.
        hashes_R: of their bytes; vectors of one hash that differ are nodes of their own.
    """
    _, first_H, hash_R = np.unique(hashes_R, return_index=True, return_inverse=True)
    first_R = first_H[hash_R]
    copies = np.flatnonzero(first_R != np.arange(len(first_R)))
    for start in range(0, len(copies), BLOCK_ROWS):
        some = copies[start : start + BLOCK_ROWS]
        others = some[(vectors_RD[some] != vectors_RD[first_R[some]]).any(axis=1)]
        first_R[others] = others
    _, node_R = np.unique(first_R, return_inverse=True)
    return node_R.astype(np.int64)


class Nodes:
    """Which rows each node has."""

    def __init__(self, node_R: NDArray[np.int64]) -> None:
        """Of the node of each row, from 0 on, without gaps.

        Raises:
            ValueError: if the rows of a node do not stand together, or the nodes not in their order.
        """
        steps = np.diff(node_R, prepend=-1)
        if ((steps != 0) & (steps != 1)).any() or (len(node_R) and node_R[0] != 0):
            raise ValueError("the rows of a node do not stand together")
        self.start_N1 = np.append(np.flatnonzero(steps), len(node_R))
        """The first row of each node, and R."""
        self.are_rows = len(self) == len(node_R)
        """Whether no two rows share a vector."""

    def __len__(self) -> int:
        return len(self.start_N1) - 1

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nodes of some rows."""
        return rows if self.are_rows else np.searchsorted(self.start_N1, rows, side="right") - 1

    def any_of(self, mask_R: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a node has a row of the mask, (N,)."""
        return mask_R if self.are_rows or not len(self) else np.logical_or.reduceat(mask_R, self.start_N1[:-1])

    def first_rows(self, nodes: NDArray[np.int64], mask_R: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """The first row of each of some nodes, of those of the mask."""
        first = self.start_N1[nodes]
        if mask_R is not None and not self.are_rows:
            first += [int(mask_R[begin:end].argmax()) for begin, end in self._bounds(nodes)]
        return first

    def expand(
        self,
        scores_QK: NDArray[np.float32],
        nodes_QK: NDArray[np.int64],
        k: int,
        order: Order,
        mask_R: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best rows of each query, by score downwards, equal scores by accession.

        Args:
            scores_QK, nodes_QK: the best nodes of each query, best first: as many as give k rows.
            k: rows of each answer.
            order: of rows by accession.
            mask_R: which rows may answer.
        """
        if self.are_rows:
            return scores_QK[:, :k], nodes_QK[:, :k]
        scores = np.empty((len(nodes_QK), k), np.float32)
        rows = np.empty((len(nodes_QK), k), np.int64)
        have_one_Q = (self.start_N1[nodes_QK + 1] - self.start_N1[nodes_QK] == 1).all(axis=1)
        if have_one_Q.any():
            scores[have_one_Q], rows[have_one_Q] = scores_QK[have_one_Q, :k], self.start_N1[nodes_QK[have_one_Q, :k]]
        for i in np.flatnonzero(~have_one_Q):
            nodes = nodes_QK[i]
            found = [
                np.arange(begin, min(end, begin + k))
                if mask_R is None
                else begin + np.flatnonzero(mask_R[begin:end])[:k]
                for begin, end in self._bounds(nodes)
            ]
            its_rows = np.concatenate(found)
            its_scores = np.repeat(scores_QK[i], [len(some) for some in found])
            if (scores_QK[i, 1:] == scores_QK[i, :-1]).any():
                by_score = np.lexsort((order(its_rows), -its_scores))
                its_rows, its_scores = its_rows[by_score], its_scores[by_score]
            scores[i], rows[i] = its_scores[:k], its_rows[:k]
        return scores, rows

    def _bounds(self, nodes: NDArray[np.int64]) -> zip[tuple[int, int]]:
        return zip(self.start_N1[nodes].tolist(), self.start_N1[nodes + 1].tolist(), strict=True)
