"""Recall of the graphs against exact search, and the ef_search that reaches a wanted one.

An answer counts when its score reaches the exact k-th, so that among equal vectors any will do; and so scores are all
that is kept of a measurement. Scores of subindexes merge into those of the index.

    Q queries, K = 100 answers, E values of ef_search
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from protclip.errors import DataError
from protclip.index.subindex import Subindex

if TYPE_CHECKING:
    from protclip.index.index import Index

NUM_QUERIES = 1_000
"""Of each kind, over the whole index."""
DEPTHS = (10, 100)
LADDER = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""The values of ef_search that are tried."""
TOLERANCE = 1e-6
NUM_GROUPS, GROUP_QUERIES = 10, 20
"""Groups of queries whose lowest recall is told, and the fewest that a group has."""
PROBE_QUERIES = 50
"""Of a loaded subindex."""
PROBE_ROWS = 1_000_000
"""A loaded index is probed until subindexes of so many rows were: each question is compared with all of them."""
PROBE_MARGIN = 0.1
"""By how much the recall of so few questions may be below that of the manifest."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Best scores of Q queries in a subindex, downwards; -inf where there are no more."""

    exact_QK: NDArray[np.float32]
    found_EQK: tuple[NDArray[np.float32], ...]
    """By ef_search and depth: first all values of ef_search at depth 10, then at 100."""

    def arrays(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """To be stored together with others."""
        named = {f"{prefix}/{i}": found for i, found in enumerate(self.found_EQK)}
        return {f"{prefix}/exact": self.exact_QK, **named}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float32]], prefix: str, num_ef: int) -> Scores:
        """What ``arrays`` stored."""
        found = tuple(arrays[f"{prefix}/{i}"] for i in range(num_ef * len(DEPTHS)))
        return cls(arrays[f"{prefix}/exact"], found)


def ladder(ef_search: int | None) -> tuple[int, ...]:
    """The values of ef_search to measure: the given one, or all that are tried."""
    return LADDER if ef_search is None else (ef_search,)


def enough(wanted: float | None) -> float:
    """A recall at 10 of a subindex above which larger values of ef_search are not tried: it misses a tenth of what the
    index may."""
    return 1.0 if wanted is None else 1 - (1 - wanted) / 10


def measure(
    subindex: Subindex,
    queries: NDArray[np.float32],
    efs: Sequence[int],
    *,
    enough_recall: float,
    own_nodes: NDArray[np.int64] | None = None,
) -> Scores:
    """Scores of the graph and of exact search, of distinct vectors: each once, however many rows share it.

    Args:
        subindex: with its graph; its ef_search is left at another value.
        queries: (Q, dimension).
        efs: upwards.
        enough_recall: at 10; a value of ef above one that reaches it has that one's scores.
        own_nodes: (Q,), the node that each query is, which is no answer to it; -1 for none.
    """
    depth = max(DEPTHS)
    assert subindex.graph is not None
    own = np.full(len(queries), -1) if own_nodes is None else own_nodes
    live_N = None if subindex.live_N.all() else subindex.live_N
    exact = _others(*subindex.search_nodes(queries, depth + 1, mask_N=live_N, exact=True), own, depth)
    by_depth: dict[int, list[NDArray[np.float32]]] = {k: [] for k in DEPTHS}
    last: dict[int, NDArray[np.float32]] = {}
    for ef in efs:
        if not last or recall(exact, last[DEPTHS[0]], DEPTHS[0]) < enough_recall:
            subindex.set_ef(ef)
            for k in DEPTHS:
                # hnswlib raises ef to k, so that answers for a larger k say nothing of a smaller one.
                if k not in last or ef > k + 1:
                    found = subindex.search_nodes(queries, k + 1, mask_N=live_N, exact=False)
                    last[k] = _others(*found, own, k)
        for k in DEPTHS:
            by_depth[k].append(last[k])
    return Scores(exact, tuple(found for k in DEPTHS for found in by_depth[k]))


def joined(parts: Sequence[Scores]) -> Scores:
    """The same subindex's scores for further queries."""
    return Scores(
        np.concatenate([part.exact_QK for part in parts]),
        tuple(np.concatenate(found) for found in zip(*(part.found_EQK for part in parts), strict=True)),
    )


def merged(subindexes: Sequence[Scores]) -> Scores:
    """The scores of the same queries over several subindexes."""

    def best(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return -np.sort(-np.concatenate(arrays, axis=1), axis=1)[:, : max(array.shape[1] for array in arrays)]

    return Scores(
        best([part.exact_QK for part in subindexes]),
        tuple(best(found) for found in zip(*(part.found_EQK for part in subindexes), strict=True)),
    )


def recall(exact_QK: NDArray[np.float32], found_QK: NDArray[np.float32], k: int) -> float:
    """Mean share of the k best that were found; of fewer where there are fewer. NaN where there is nothing to find."""
    shares_Q = _shares(exact_QK, found_QK, k)
    return float(shares_Q.mean()) if len(shares_Q) else float("nan")


def _shares(exact_QK: NDArray[np.float32], found_QK: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """The same of each query that has something to find."""
    k = min(k, exact_QK.shape[1])
    there_Q = np.isfinite(exact_QK[:, :k]).sum(axis=1)
    asked = there_Q > 0
    worst = exact_QK[asked, there_Q[asked] - 1]
    hits = ((found_QK[asked, :k] >= worst[:, None] - TOLERANCE) & np.isfinite(found_QK[asked, :k])).sum(axis=1)
    shares_Q: NDArray[np.float64] = hits / there_Q[asked]
    return shares_Q


def choose(scores: Mapping[str, Scores], efs: Sequence[int], wanted: float | None) -> int:
    """The place in ``efs`` of the smallest with which each kind of queries can be trusted to have the wanted recall at
    10: a standard error less than was measured is as much. The last where none has it, or none is wanted."""
    if wanted is not None:
        for i in range(len(efs)):
            shares = [_shares(kind.exact_QK, kind.found_EQK[i], DEPTHS[0]) for kind in scores.values()]
            if all(
                of_kind.mean() - of_kind.std() / len(of_kind) ** 0.5 >= wanted for of_kind in shares if len(of_kind)
            ):
                return i
    return len(efs) - 1


def report(scores: Mapping[str, Scores], place: int, num_ef: int) -> dict[str, dict[str, Any]]:
    """What the manifest records of each kind of queries at the chosen ef_search; kinds with nothing to find are left
    out."""
    result: dict[str, dict[str, Any]] = {}
    for kind, of_kind in scores.items():
        values = [
            recall(of_kind.exact_QK, of_kind.found_EQK[d * num_ef + place], depth) for d, depth in enumerate(DEPTHS)
        ]
        if not np.isnan(values).any():
            named = {f"at_{depth}": round(value, 5) for depth, value in zip(DEPTHS, values, strict=True)}
            lowest = _lowest_of_groups(of_kind.exact_QK, of_kind.found_EQK[place])
            result[kind] = {"queries": len(of_kind.exact_QK), **named, **lowest}
    return result


def _lowest_of_groups(exact_QK: NDArray[np.float32], found_QK: NDArray[np.float32]) -> dict[str, float]:
    """The recall of the group of queries for which it is lowest; nothing where they are too few.

    Queries are grouped by how near their nearest lie: some graphs miss what stands alone, others what stands close.
    """
    if len(exact_QK) < NUM_GROUPS * GROUP_QUERIES:
        return {}
    k = DEPTHS[0]
    groups = np.array_split(np.argsort(exact_QK[:, :k].mean(axis=1), kind="stable"), NUM_GROUPS)
    recalls = [recall(exact_QK[group], found_QK[group], k) for group in groups]
    return {f"lowest_at_{k}": round(float(np.nanmin(recalls)), 5)}  # NaN of a group that has nothing to find


def probe(index: Index) -> None:
    """Compare what the graphs of a loaded index find of some of its rows with exact search; it warms them up as well.

    Raises:
        DataError: if they find clearly less than the manifest says.
    """
    depth, probed = DEPTHS[0], 0
    for record, subindex in zip(index.manifest.segments, index.subindexes, strict=True):
        stated = record.recall.get("inside", {}).get(f"at_{depth}")
        if subindex.graph is None or stated is None or probed >= PROBE_ROWS:
            continue
        probed += len(subindex)
        live_N = subindex.live_N
        live = np.flatnonzero(live_N)
        own = live[np.linspace(0, len(live) - 1, min(PROBE_QUERIES, len(live))).astype(np.int64)]
        exact, found = (
            _others(*subindex.search_nodes(subindex.vectors_ND[own], depth + 1, mask_N=live_N, exact=how), own, depth)
            for how in (True, None)
        )
        measured = recall(exact, found, depth)
        if measured < stated - PROBE_MARGIN:
            raise DataError(
                f"{record.name}: its graph finds {measured:.2f} of the {depth} nearest, and its manifest says "
                f"{stated:.2f}; make the index again."
            )


def _others(
    scores_QK: NDArray[np.float32], nodes_QK: NDArray[np.int64], own_Q: NDArray[np.int64], k: int
) -> NDArray[np.float32]:
    """The k best scores without the query's own node, padded with -inf."""
    scores = np.where(nodes_QK == own_Q[:, None], -np.inf, scores_QK).astype(np.float32)
    scores = -np.sort(-scores, axis=1)[:, :k]
    return np.pad(scores, ((0, 0), (0, k - scores.shape[1])), constant_values=-np.inf)
