"""Edges of a graph of proteins to train on and to test on, as GNN-PPI parts them (Lv et al. 2021, arXiv:2105.06709).

Test edges are a fifth of all: drawn at random; or those that a breadth-first or depth-first walk meets, which starts at
a protein of at most MAX_ROOT_DEGREE edges and takes all edges of each protein that it visits. So the proteins of one
region are hardly seen in training. Shapes: E edges.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from protclip.errors import DataError

Mode = Literal["random", "bfs", "dfs"]
TEST_SHARE = 0.2
MAX_ROOT_DEGREE = 5


def test_edges(edges_E2: np.ndarray, mode: Mode, seed: int) -> np.ndarray:
    """Which edges are to test on.

    Args:
        edges_E2: places of proteins, each edge once and in one direction.
        mode: how they are chosen.
        seed: of the draw, or of the protein at which the walk starts; GNN-PPI has none, so its own splits cannot be
            had again.

    Returns:
        bool (E,): int(E / 5) edges; of a walk up to as many more as the last protein has.

    Raises:
        DataError: if there are fewer than five edges, or no protein to start at from which enough can be reached.
    """
    size = int(len(edges_E2) * TEST_SHARE)
    if size < 1:
        raise DataError(f"{len(edges_E2)} edges have no fifth to test on; give at least 5.")
    generator = random.Random(seed)
    if mode == "random":
        order = list(range(len(edges_E2)))
        generator.shuffle(order)
        return _as_mask(order[len(order) - size :], len(edges_E2))
    graph = _Graph(edges_E2)
    roots = [node for node, edges in graph.edges_of.items() if len(edges) <= MAX_ROOT_DEGREE]
    generator.shuffle(roots)
    walk: Callable[[_Graph, int, int], list[int]] = breadth_first if mode == "bfs" else depth_first
    for root in roots:
        found = walk(graph, root, size)
        if len(found) >= size:
            return _as_mask(found, len(edges_E2))
    raise DataError(
        f"no protein of at most {MAX_ROOT_DEGREE} edges leads to {size:,} others of {len(edges_E2):,} edges, which the "
        f"split {mode} needs; give a larger connected graph, or take the split random."
    )


class _Graph:
    """The edges of each protein, in the order of the file."""

    def __init__(self, edges_E2: np.ndarray) -> None:
        self.ends: list[tuple[int, int]] = [(int(a), int(b)) for a, b in edges_E2]
        self.edges_of: dict[int, list[int]] = {}
        for edge, (a, b) in enumerate(self.ends):
            self.edges_of.setdefault(a, []).append(edge)
            if b != a:
                self.edges_of.setdefault(b, []).append(edge)

    def other_end(self, edge: int, node: int) -> int:
        a, b = self.ends[edge]
        return b if a == node else a


def breadth_first(graph: _Graph, root: int, size: int) -> list[int]:
    """Edges in the order in which a queue of proteins meets them, until there are enough or no more."""
    queue, met = deque([root]), {root}
    found: dict[int, None] = {}
    while queue and len(found) < size:
        node = queue.popleft()
        for edge in graph.edges_of[node]:
            found[edge] = None
            end = graph.other_end(edge, node)
            if end not in met:
                met.add(end)
                queue.append(end)
    return list(found)


def depth_first(graph: _Graph, root: int, size: int) -> list[int]:
    """Edges in the order in which a walk that goes on from the last protein meets them."""
    stack, met = [root], {root}
    found: dict[int, None] = dict.fromkeys(graph.edges_of[root])
    while stack and len(found) < size:
        ends = (graph.other_end(edge, stack[-1]) for edge in graph.edges_of[stack[-1]])
        following = next((end for end in ends if end not in met), None)
        if following is None:
            stack.pop()
            continue
        stack.append(following)
        met.add(following)
        found.update(dict.fromkeys(graph.edges_of[following]))
    return list(found)


def seen_shares(train_E2: np.ndarray, test_E2: np.ndarray) -> dict[str, float]:
    """Shares of the test edges of which both, one or neither protein has an edge to train on: GNN-PPI's BS, ES, NS."""
    seen = np.isin(test_E2, np.unique(train_E2)).sum(axis=1)
    return {name: float(np.mean(seen == number)) for name, number in (("both", 2), ("one", 1), ("neither", 0))}


def _as_mask(places: Sequence[int], length: int) -> np.ndarray:
    mask = np.zeros(length, bool)
    mask[list(places)] = True
    return mask
