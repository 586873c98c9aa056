"""Where right answers stand among candidates, and the numbers that follow, ties by their expectation.

Where candidates tie, every order of them is as likely as any other, and each number is its mean over these orders
(McSherry and Najork 2008, doi:10.1007/978-3-540-78646-7_38). A constant score is so worth what chance is.

Shapes: Q queries, N candidates, D width; of places three columns: the wrong candidates that score above the best right
one, the wrong ones that tie with it, and the right ones of that score, itself among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
_SCORES_PER_BLOCK = 1 << 25
"""Held at once, 128 MB."""


class Ranking(NamedTuple):
    """Of each query."""

    places_Q3: Places
    ndcg_Q: NDArray[np.float64]
    """Normalised discounted cumulative gain over all candidates, each right one of gain 1 (Järvelin and Kekäläinen
    2002, doi:10.1145/582415.582418)."""


def rank_all(
    query_QD: NDArray[np.float32],
    candidate_ND: NDArray[np.float32],
    right: Sequence[NDArray[np.int64]],
    hidden: Sequence[NDArray[np.int64]] | None = None,
) -> Ranking:
    """Rank all candidates by their dot product with each query, a block of queries at a time.

    Equal candidates tie exactly. A score that is not a number is below all others.

    Args:
        query_QD: of unit length, for cosines.
        candidate_ND: likewise.
        right: of each query the distinct places of its right candidates, one or more.
        hidden: of each query those that are left out of its ranking, none of them right.
    """
    distinct_UD, of_N = np.unique(candidate_ND, axis=0, return_inverse=True)
    of_N = of_N.reshape(-1)
    gain_N1 = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, len(of_N) + 2)))])
    places_Q3 = np.empty((len(query_QD), 3), np.int64)
    ndcg_Q = np.empty(len(query_QD))
    rows = max(1, _SCORES_PER_BLOCK // max(1, len(of_N)))
    for start in range(0, len(query_QD), rows):
        scores_BN = (query_QD[start : start + rows] @ distinct_UD.T)[:, of_N]
        scores_BN[np.isnan(scores_BN)] = -np.inf
        sorted_BN = np.sort(scores_BN, axis=1)
        for q, (scores_N, sorted_N) in enumerate(zip(scores_BN, sorted_BN, strict=True), start):
            right_R = scores_N[right[q]]
            above_R, tied_R = _above_and_tied(sorted_N, right_R)
            if hidden is not None and len(hidden[q]):
                more_R, other_R = _above_and_tied(np.sort(scores_N[hidden[q]]), right_R)
                above_R, tied_R = above_R - more_R, tied_R - other_R
            best = right_R.argmax()
            num_best = np.count_nonzero(right_R == right_R[best])
            places_Q3[q] = above_R[best], tied_R[best] - num_best, num_best
            ndcg_Q[q] = ((gain_N1[above_R + tied_R] - gain_N1[above_R]) / tied_R).sum() / gain_N1[len(right_R)]
    return Ranking(places_Q3, ndcg_Q)


def places_of_chance(num_right_Q: NDArray[np.int64], num_candidates: int) -> Places:
    """Those of a score that tells no candidate from another."""
    return np.stack([np.zeros_like(num_right_Q), num_candidates - num_right_Q, num_right_Q], axis=1)


def expected(places_Q3: Places, of: Callable[[NDArray[np.int64]], NDArray[Any]]) -> NDArray[np.float64]:
    """The mean over the orders of ties of a function of the rank, from 1, of the first right candidate, (Q,)."""
    values_Q = of(places_Q3[:, 0] + 1).astype(np.float64)
    tied_Q = places_Q3[:, 1] > 0
    distinct_U3, of_T = np.unique(places_Q3[tied_Q], axis=0, return_inverse=True)
    means_U = np.array([_mean_over_orders(of, *map(int, one)) for one in distinct_U3])
    if len(means_U):
        values_Q[tied_Q] = means_U[of_T.reshape(-1)]
    return values_Q


def recall(places_Q3: Places, k: int) -> NDArray[np.float64]:
    """Of each query how likely a right candidate is among the first k; of knowledge graphs it is called Hits@k."""
    return expected(places_Q3, lambda rank: rank <= k)


def reciprocal_rank(places_Q3: Places) -> NDArray[np.float64]:
    """Of each query."""
    return expected(places_Q3, lambda rank: 1 / rank)


def ranking_metrics(places_Q3: Places, cutoffs: Sequence[int], *, recall_name: str = "recall") -> dict[str, float]:
    """recall@k, the median of the expected ranks, and the mean reciprocal rank."""
    recalls = {f"{recall_name}@{k}": float(recall(places_Q3, k).mean()) for k in cutoffs}
    median = float(np.median(expected(places_Q3, lambda rank: rank)))
    return {**recalls, "median_rank": median, "mrr": float(reciprocal_rank(places_Q3).mean())}


def _above_and_tied(
    sorted_N: NDArray[np.float32], scores_R: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the sorted scores are above each score, and equal to it."""
    end_R = np.searchsorted(sorted_N, scores_R, "right")
    return len(sorted_N) - end_R, end_R - np.searchsorted(sorted_N, scores_R, "left")


def _mean_over_orders(of: Callable[[NDArray[np.int64]], NDArray[Any]], above: int, wrong: int, right: int) -> float:
    # The first right one of the tied stands behind j wrong ones with the probability that these come first and it
    # next: right / total for j = 0, and (wrong - j + 1) / (total - j) times that of j - 1 from then on.
    total, j = wrong + right, np.arange(1, wrong + 1)
    chance = np.concatenate([[1.0], np.cumprod((wrong - j + 1) / (total - j))]) * (right / total)
    return float(chance @ of(above + 1 + np.arange(wrong + 1)))
