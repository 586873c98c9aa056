"""The distinct keys of a stream, in 24 bytes a key: 6 GB for UniProt's 250 million accessions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
"""Two keys of billions have the same digest with a chance of less than 1 in 10¹⁹."""

_Level = tuple[NDArray[np.bytes_], NDArray[np.int64]]


class DistinctKeys:
    """Digests of keys with their numbers, as sorted arrays of which each is at most half as long as the one before."""

    def __init__(self) -> None:
        self._levels: list[_Level] = []

    def __len__(self) -> int:
        return sum(len(digests) for digests, _ in self._levels)

    def number(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The number of each key, from 0 in the order in which they came first, and whether that was here."""
        digests = [hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest() for key in keys]
        unique, index, inverse = np.unique(
            np.array(digests, dtype=f"S{DIGEST_BYTES}"), return_index=True, return_inverse=True
        )
        number, is_new = np.empty(len(unique), dtype=np.int64), np.ones(len(unique), dtype=bool)
        for level, known in self._levels:
            at = np.minimum(np.searchsorted(level, unique), len(level) - 1)
            hit = level[at] == unique
            number[hit], is_new[hit] = known[at[hit]], False
        number[is_new] = len(self) + np.argsort(np.argsort(index[is_new]))
        if is_new.any():
            self._levels.append((unique[is_new], number[is_new]))
        while len(self._levels) > 1 and len(self._levels[-2][0]) < 2 * len(self._levels[-1][0]):
            self._levels.append(_merged(self._levels.pop(), self._levels.pop()))
        is_first = np.zeros(len(keys), dtype=bool)
        is_first[index[is_new]] = True
        return number[inverse], is_first


def _merged(a: _Level, b: _Level) -> _Level:
    digests, numbers = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    order = np.argsort(digests, kind="stable")
    return digests[order], numbers[order]
