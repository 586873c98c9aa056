"""The whole vectors of a compact index: two bytes a number, mapped from a file.

A vector is the mean of the index and, beside it, numbers in int16 times a scale of its own. So what tells vectors apart
is kept as finely where all lie close to one direction, as those of weak models do, as where they lie apart.

N vectors, D dimension
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import check_npy
from protclip.errors import DataError
from protclip.index.exact import BLOCK_ROWS

_LARGEST = 32_767


class WholeVectors:
    """What ``write_vectors`` wrote, as float32 of whatever part is taken."""

    def __init__(self, stored_N: NDArray[Any], mean_D: NDArray[np.float32]) -> None:
        """Args are what the file holds, and the mean with which it was written."""
        self._stored_N, self._mean_D = stored_N, mean_D

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return len(self), len(self._mean_D)

    def __len__(self) -> int:
        return len(self._stored_N)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Vectors, as numpy's index of the first axis takes them: (…, D)."""
        stored = self._stored_N[index]
        vectors: NDArray[np.float32] = stored["numbers"].astype(np.float32)
        vectors *= stored["scale"][..., None]
        vectors += self._mean_D
        return vectors


def write_vectors(path: str, vectors_ND: NDArray[np.float32], mean_D: NDArray[np.float32]) -> None:
    """Write vectors."""
    count, dimension = vectors_ND.shape
    dtype = _dtype(dimension)
    with files.atomic_write(path) as stream:
        head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(stream, head)
        for start in range(0, count, BLOCK_ROWS):
            apart_ND = vectors_ND[start : start + BLOCK_ROWS] - mean_D
            scale_N = (np.abs(apart_ND).max(axis=1) / _LARGEST).astype("<f4")
            stored_N = np.empty(len(apart_ND), dtype)
            stored_N["scale"] = scale_N
            stored_N["numbers"] = np.rint(apart_ND / np.where(scale_N == 0, 1, scale_N)[:, None])
            stream.write(stored_N.tobytes())


def map_vectors(path: str, mean_D: NDArray[np.float32], *, count: int) -> WholeVectors:
    """Vectors of a local file, which stay in it.

    Raises:
        DataError: if it is no such file.
    """
    check_npy(path, kind="V")
    stored_N: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    if stored_N.shape != (count,) or stored_N.dtype != _dtype(len(mean_D)):
        raise DataError(f"{path}: does not hold {count} vectors of dimension {len(mean_D)}; make the index again.")
    return WholeVectors(stored_N, mean_D)


def _dtype(dimension: int) -> np.dtype[Any]:
    return np.dtype([("scale", "<f4"), ("numbers", "<i2", (dimension,))])
