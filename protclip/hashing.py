"""Seeded decisions: the same (seed, purpose, key) gives the same number on every machine, in any order."""

from __future__ import annotations

import hashlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio, odd: multiples of it step through all 64-bit numbers (SplitMix64's increment)."""


def hash64(*parts: int | str) -> int:
    """A uniform 64-bit integer from the parts, by BLAKE2b."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def uniform(*parts: int | str) -> float:
    """A uniform number in [0, 1) from the parts."""
    return (hash64(*parts) >> 11) / float(1 << 53)


def splitmix64(numbers: np.ndarray) -> np.ndarray:
    """A bijection that scatters 64-bit integers: the last steps of SplitMix64 (Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed
