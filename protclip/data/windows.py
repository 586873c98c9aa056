"""Overlapping windows over a protein that is longer than the model sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def window_starts(length: int, size: int) -> list[int]:
    """Starts, from 0, of evenly spaced windows that cover all residues, neighbours overlapping by at least half.

    One window where all fits. The last one ends with the sequence.
    """
    if length <= size:
        return [0]
    num_windows = 1 + -(-(length - size) // max(1, size // 2))
    return [i * (length - size) // (num_windows - 1) for i in range(num_windows)]


def window_weights(starts: Sequence[int], size: int, length: int) -> np.ndarray:
    """Weight of each window in a mean over residues, of sum 1: a residue in k windows gives each of them 1 / k."""
    cover_L = np.zeros(length)
    for start in starts:
        cover_L[start : start + size] += 1
    weights = np.array([(1 / cover_L[start : start + size]).sum() for start in starts])
    weights /= weights.sum()
    return weights.astype(np.float32)
