"""Connected components of a growing graph, by arrays."""

from __future__ import annotations

import numpy as np


class Components:
    """Union-find over 0 … number-1; the root of a component is its smallest member."""

    def __init__(self, number: int) -> None:
        self.roots = np.arange(number)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Join pairwise."""
        while True:
            low = np.minimum(self.roots[first], self.roots[second])
            high = np.maximum(self.roots[first], self.roots[second])
            apart = low != high
            if not apart.any():
                return
            first, second, low, high = first[apart], second[apart], low[apart], high[apart]
            # Each root is hung below the smallest root that it met; what it met besides is joined in the next round.
            np.minimum.at(self.roots, high, low)
            self._flatten()

    def _flatten(self) -> None:
        while True:
            roots = self.roots[self.roots]
            if np.array_equal(roots, self.roots):
                return
            self.roots = roots
