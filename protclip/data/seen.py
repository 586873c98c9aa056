"""Which keys of a stream came before, in 16 bytes a key: 4 GB for UniProt's 250 million accessions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
"""Two keys of billions have the same digest with a chance of less than 1 in 10¹⁹."""


class SeenKeys:
    """The digests of all keys so far, as sorted arrays of which each is at most half as long as the one before."""

    def __init__(self) -> None:
        self._levels: list[NDArray[np.bytes_]] = []

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def repeated(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each key came before, in an earlier call or in this one; from now on all of them have."""
        digests = [hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest() for key in keys]
        new, first = np.unique(np.array(digests, dtype=f"S{DIGEST_BYTES}"), return_index=True)
        is_known = np.zeros(len(new), dtype=bool)
        for level in self._levels:
            place = np.minimum(np.searchsorted(level, new), len(level) - 1)
            is_known |= level[place] == new
        repeated = np.ones(len(keys), dtype=bool)
        repeated[first[~is_known]] = False
        if len(new := new[~is_known]):
            self._levels.append(new)
        while len(self._levels) > 1 and len(self._levels[-2]) < 2 * len(self._levels[-1]):
            self._levels.append(np.sort(np.concatenate([self._levels.pop(), self._levels.pop()])))
        return repeated
