"""Embeddings of fewer dimensions: the first numbers of each, of unit length anew.

Any model's embeddings can be cut; those of one trained with ``objectives.gc_prefixes`` lose little by it.

Shapes: any number of rows, D width of an embedding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-12
"""As torch's ``normalize``: a vector of zeros stays one."""


def cut_to(
    vectors_D: NDArray[np.float32], dimensions: int | None, *, to_unit_length: bool = True
) -> NDArray[np.float32]:
    """The first so many numbers of each vector of (…, D); those that have no more, and None, leave all as they are."""
    if dimensions is None or dimensions >= vectors_D.shape[-1]:
        return vectors_D
    cut_D = np.ascontiguousarray(vectors_D[..., :dimensions])
    if not to_unit_length:
        return cut_D
    norm = np.maximum(np.linalg.norm(cut_D, axis=-1, keepdims=True), _TINY)
    unit_D: NDArray[np.float32] = np.divide(cut_D, norm, dtype=np.float32)
    return unit_D
