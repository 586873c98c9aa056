"""Which rows an epoch trains on, where the property-driven sampling draws anew each epoch.

Shapes: N rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from protclip.data.masking import stream_keys, uniforms
from protclip.hashing import hash64

SUBSET_COLUMNS = ("accession", "probability")
"""The columns of a pair that decide."""


def epoch_subset(rows: pa.Table, *, seed: int, epoch: int) -> np.ndarray:
    """Indices of the rows that are drawn, each with its probability, by (seed, epoch, accession) alone."""
    drawn_N: np.ndarray = _drawn(rows, seed=seed, epochs=range(epoch, epoch + 1))[0]
    return np.flatnonzero(drawn_N)


def count_subsets(rows: pa.Table, *, seed: int, epochs: int) -> list[int]:
    """How many rows each epoch draws."""
    return [int(drawn_N.sum()) for drawn_N in _drawn(rows, seed=seed, epochs=range(epochs))]


def _drawn(rows: pa.Table, *, seed: int, epochs: range) -> list[np.ndarray]:
    hash_N = np.array([hash64(accession) for accession in rows.column("accession").to_pylist()], dtype=np.uint64)
    probability_N = rows.column("probability").to_numpy()
    keys = (stream_keys(hash_N, seed=seed, epoch=epoch, purpose="sampling") for epoch in epochs)
    return [uniforms(key_N, 1)[:, 0] < probability_N for key_N in keys]
