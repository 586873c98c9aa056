"""The distinct keys of a stream, in 24 bytes a key: 6 GB for UniProt's 250 million accessions."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
"""Two keys of billions have the same digest with a chance of less than 1 in 10¹⁹."""

NUM_SHELVES = 16
"""Keys lie apart by the first bits of their digests: merging needs three times the memory of what it merges, which is
so a sixteenth of all."""

_Level = tuple[NDArray[np.bytes_], NDArray[np.int64]]
_DIGEST = np.dtype(f"S{DIGEST_BYTES}")
_FIRST_OF_SHELF = np.array([bytes([256 * shelf // NUM_SHELVES]) for shelf in range(NUM_SHELVES)], dtype=_DIGEST)


class DistinctKeys:
    """Digests of keys with their numbers: on each shelf sorted arrays, each at most half as long as the one before."""

    def __init__(self) -> None:
        self._shelves: list[list[_Level]] = [[] for _ in range(NUM_SHELVES)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def number(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The number of each key, from 0 in the order in which they came first, and whether that was here."""
        digests = [hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest() for key in keys]
        unique, index, inverse = np.unique(np.array(digests, dtype=_DIGEST), return_index=True, return_inverse=True)
        number, is_new = np.empty(len(unique), dtype=np.int64), np.ones(len(unique), dtype=bool)
        edges = [*np.searchsorted(unique, _FIRST_OF_SHELF).tolist(), len(unique)]
        ranges = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        for levels, here in zip(self._shelves, ranges, strict=True):
            for level, known in levels:
                at = np.minimum(np.searchsorted(level, unique[here]), len(level) - 1)
                hit = level[at] == unique[here]
                number[here][hit], is_new[here][hit] = known[at[hit]], False
        number[is_new] = self._count + np.argsort(np.argsort(index[is_new]))
        self._count += int(is_new.sum())
        for levels, here in zip(self._shelves, ranges, strict=True):
            if is_new[here].any():
                levels.append((unique[here][is_new[here]], number[here][is_new[here]]))
            while len(levels) > 1 and len(levels[-2][0]) < 2 * len(levels[-1][0]):
                levels.append(_merged(levels.pop(), levels.pop()))
        is_first = np.zeros(len(keys), dtype=bool)
        is_first[index[is_new]] = True
        return number[inverse], is_first


def _merged(a: _Level, b: _Level) -> _Level:
    digests, numbers = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    order = np.argsort(digests, kind="stable")
    return digests[order], numbers[order]
