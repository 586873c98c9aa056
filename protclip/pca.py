"""The plane in which vectors lie furthest apart: a picture of the answers to a question.

Shapes: N vectors, D their width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plane_of(vectors_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Coordinates on the first two principal components, (N, 2), in the unit of the vectors; their mean is the origin.

    The sign of a component is free. Here the coordinate furthest from 0 is positive, the first where several are as
    far, so that the same vectors give the same picture everywhere. Without a second component its coordinates are 0.
    """
    centered_ND = vectors_ND.astype(np.float64)
    centered_ND -= centered_ND.mean(axis=0) if len(vectors_ND) else 0
    # The smaller of the two products has the same components, and costs a fraction of the decomposition itself.
    num_vectors, width = centered_ND.shape
    if num_vectors <= width:
        values, vectors = np.linalg.eigh(centered_ND @ centered_ND.T)
        coordinates = vectors[:, :-3:-1] * np.sqrt(values[:-3:-1].clip(0))
    else:
        _, vectors = np.linalg.eigh(centered_ND.T @ centered_ND)
        coordinates = centered_ND @ vectors[:, :-3:-1]
    coordinates_N2 = np.zeros((num_vectors, 2))
    coordinates_N2[:, : coordinates.shape[1]] = coordinates
    if num_vectors:
        # Rounded, so that of two equally far the last bit does not decide.
        furthest = np.abs(coordinates_N2.round(9)).argmax(axis=0)
        coordinates_N2 *= np.where(coordinates_N2[furthest, [0, 1]] < 0, -1, 1)
    return coordinates_N2
