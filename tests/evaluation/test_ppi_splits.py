"""Splits of a graph of proteins: by hand, by brute force, and what GNN-PPI says of them."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from protclip.errors import DataError
from protclip.evaluation import ppi_splits
from protclip.evaluation.ppi_splits import MAX_ROOT_DEGREE, _Graph, breadth_first, depth_first, seen_shares

pytestmark = pytest.mark.unit

#   0 — 1 — 3 — 5
#   |   |
#   2 — 4          edges are numbered as they stand here
HAND = np.array([[0, 1], [0, 2], [1, 3], [1, 4], [2, 4], [3, 5]])


def test_a_breadth_first_walk_by_hand() -> None:
    # 0 gives its edges 0, 1; then 1 its others 2, 3; then 2 its other 4; then 3 its other 5.
    for size, found in ((1, [0, 1]), (3, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 5])):
        assert breadth_first(_Graph(HAND), 0, size) == found


def test_a_depth_first_walk_by_hand() -> None:
    # 0 gives 0, 1; on to 1 by edge 0: 2, 3; on to 3 by edge 2: 5; 5 has no more; back to 1, on to 4: 4.
    for size, found in ((1, [0, 1]), (3, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 5]), (6, [0, 1, 2, 3, 5, 4])):
        assert depth_first(_Graph(HAND), 0, size) == found


def test_shares_of_seen_proteins_by_hand() -> None:
    train, test = np.array([[0, 1], [1, 2]]), np.array([[0, 2], [2, 3], [3, 4], [4, 5]])
    assert seen_shares(train, test) == {"both": 0.25, "one": 0.25, "neither": 0.5}


@st.composite
def _graphs(draw: st.DrawFn) -> np.ndarray:
    """Connected graphs: each node from 1 on has an edge to an earlier one, and some have more."""
    count = draw(st.integers(6, 25))
    tree = [(draw(st.integers(0, node - 1)), node) for node in range(1, count)]
    more = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30))
    edges = sorted({(min(a, b), max(a, b)) for a, b in [*tree, *more] if a != b})
    return np.array(draw(st.permutations(edges)))


def _by_brute_force(edges: np.ndarray, root: int, *, depth: bool) -> list[int]:
    """All edges in the order in which a walk meets them, straight from the definition of the walk."""
    order: list[int] = []

    def ends(node: int) -> list[int]:
        return [int(b if a == node else a) for a, b in edges if node in (a, b)]

    def dive(node: int) -> None:
        order.append(node)
        for end in ends(node):
            if end not in order:
                dive(end)

    if depth:
        dive(root)
    else:
        order = [root]
        for node in order:
            order += [end for end in ends(node) if end not in order]
    met = [int(edge) for node in order for edge in np.flatnonzero((edges == node).any(axis=1))]
    return list(dict.fromkeys(met))


@hypothesis.given(_graphs(), st.booleans())
def test_walks_are_those_of_brute_force(edges: np.ndarray, depth: bool) -> None:
    walk = depth_first if depth else breadth_first
    expected = _by_brute_force(edges, 0, depth=depth)
    assert walk(_Graph(edges), 0, len(edges)) == expected
    for size in range(1, len(edges)):
        found = walk(_Graph(edges), 0, size)
        assert found == expected[: len(found)]
        # Less the edges of the last protein there were too few.
        assert size <= len(found) < size + len(edges)


@hypothesis.given(_graphs(), st.sampled_from(["random", "bfs", "dfs"]), st.integers(0, 3))
def test_a_split_is_a_fifth_and_the_same_for_a_seed(edges: np.ndarray, mode: str, seed: int) -> None:
    found = ppi_splits.test_edges(edges, mode, seed)  # type: ignore[arg-type]
    assert np.array_equal(found, ppi_splits.test_edges(edges, mode, seed))  # type: ignore[arg-type]
    degree = np.bincount(edges.ravel()).max()
    least = len(edges) // 5
    assert least <= found.sum() <= (least if mode == "random" else max(least, 1) + degree)


@hypothesis.given(_graphs(), st.sampled_from(["bfs", "dfs"]))
def test_every_test_edge_of_a_walk_has_a_protein_that_is_not_in_train(edges: np.ndarray, mode: str) -> None:
    testing = ppi_splits.test_edges(edges, mode, 0)  # type: ignore[arg-type]
    if testing.all():
        return
    assert seen_shares(edges[~testing], edges[testing])["both"] == 0


def test_another_seed_gives_another_split() -> None:
    edges = np.array([(a, b) for a in range(30) for b in range(a + 1, min(a + 3, 30))])
    for mode in ("random", "bfs", "dfs"):
        found = {ppi_splits.test_edges(edges, mode, seed).tobytes() for seed in range(5)}  # type: ignore[arg-type]
        assert len(found) > 1, mode


def test_a_walk_starts_at_a_protein_of_few_edges() -> None:
    hub = [(0, leaf) for leaf in range(1, MAX_ROOT_DEGREE + 2)]
    ring = [(a, a + 1) for a in range(1, MAX_ROOT_DEGREE + 1)]
    edges = np.array([*hub, *ring])
    for seed in range(20):
        assert ppi_splits.test_edges(edges, "bfs", seed).sum() <= 3  # from the hub they would be six


def test_a_graph_of_pieces_that_are_too_small_is_refused() -> None:
    pairs = np.arange(40).reshape(20, 2)
    with pytest.raises(DataError, match="leads to 4 others of 20 edges, which the split bfs needs"):
        ppi_splits.test_edges(pairs, "bfs", 0)
    assert ppi_splits.test_edges(pairs, "random", 0).sum() == 4


def test_a_walk_goes_to_a_piece_that_is_large_enough() -> None:
    pieces = np.array([[0, 1], [2, 3], *([4, leaf] for leaf in range(5, 21))])
    for seed in range(10):
        found = ppi_splits.test_edges(pieces, "bfs", seed)
        assert found.sum() == 16 and not found[:2].any()


def test_too_few_edges_are_refused() -> None:
    with pytest.raises(DataError, match="4 edges have no fifth to test on; give at least 5"):
        ppi_splits.test_edges(np.arange(8).reshape(4, 2), "random", 0)
