"""Retrieval of proteins by texts and of texts by proteins, in the common space.

Shapes: P proteins, T texts, D width of the common space, N rows, Q distinct queries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protclip.evaluation.features import checked, checked_texts, unit
from protclip.evaluation.task import Benchmark, Outcome
from protclip.metrics.ranking import Places, places_of_chance, rank_all, ranking_metrics

CUTOFFS = (1, 5, 10, 100)


def retrieval(benchmark: Benchmark, protein_PD: NDArray[np.float32], text_TD: NDArray[np.float32]) -> Outcome:
    """recall@1/5/10/100, median rank, MRR and nDCG among the distinct proteins and texts of the test split.

    Each row is a query in both directions. Right for its text is every protein that some row pairs with it, and for
    its protein every text. Ties count by their expectation (``protclip.metrics.ranking``).

    Args:
        benchmark: rows of a protein and a text each; a text may come with many proteins, such as a GO term's, and a
            protein with many texts. The rows of its groups are scored beside, among all candidates.
        protein_PD: of the benchmark's proteins, in the common space.
        text_TD: of its texts.

    Returns:
        metrics: text → protein without a prefix, protein → text as ``protein_to_text_…``; what a random order has as
            ``chance_…`` and ``chance_protein_to_text_…``; means over distinct queries instead of rows as
            ``by_query_…``; of a group as ``recall@1[organism=…]``, likewise of the other numbers and of the other
            direction, and its number of rows as ``rows[organism=…]``.
        predictions: the places of text → protein.

    Raises:
        DataError: if the embeddings do not fit the benchmark.
    """
    test = benchmark.splits["test"]
    protein_PD = unit(checked(protein_PD, benchmark))
    text_TD = unit(checked_texts(text_TD, benchmark))
    protein_N, text_N = test.proteins_NK[:, 0], test.labels
    of_rows = {name: np.asarray(values) for name, values in benchmark.groups.items()}
    metrics: dict[str, float] = {}
    predictions: list[Places] = []
    for direction, query_N, query_XD, candidate_N, candidate_YD in (
        ("", text_N, text_TD, protein_N, protein_PD),
        ("protein_to_text_", protein_N, protein_PD, text_N, text_TD),
    ):
        queries, query_of_N = np.unique(query_N, return_inverse=True)
        candidates, candidate_of_N = np.unique(candidate_N, return_inverse=True)
        right = partners(query_of_N, candidate_of_N, len(queries))
        places_Q3, ndcg_Q = rank_all(query_XD[queries], candidate_YD[candidates], right)
        places_N3, ndcg_N = places_Q3[query_of_N], ndcg_Q[query_of_N]
        chance_Q3 = places_of_chance(np.array([len(one) for one in right]), len(candidates))
        found = {
            "": _numbers(places_N3, ndcg_N),
            "by_query_": _numbers(places_Q3, ndcg_Q),
            "chance_": ranking_metrics(chance_Q3[query_of_N], CUTOFFS),
        }
        metrics |= {f"{how}{direction}{name}": value for how, all_ in found.items() for name, value in all_.items()}
        for group, values_N in of_rows.items():
            for value in sorted(set(values_N.tolist()) - {""}):
                is_in_N = values_N == value
                own = _numbers(places_N3[is_in_N], ndcg_N[is_in_N])
                metrics |= {f"{direction}{name}[{group}={value}]": number for name, number in own.items()}
                metrics[f"rows[{group}={value}]"] = float(is_in_N.sum())
        predictions.append(places_N3)
    return Outcome(metrics=metrics, predictions=predictions[0], settings={})


def partners(of_N: NDArray[np.int64], partner_N: NDArray[np.int64], num: int) -> list[NDArray[np.int64]]:
    """The distinct partners of each of so many, sorted, where row i pairs ``of_N[i]`` with ``partner_N[i]``."""
    pairs = np.unique(np.stack([of_N, partner_N], axis=1), axis=0)
    return np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, num)))


def _numbers(places_N3: Places, ndcg_N: NDArray[np.float64]) -> dict[str, float]:
    return {**ranking_metrics(places_N3, CUTOFFS), "ndcg": float(ndcg_N.mean())}
