"""The few numbers of a vector that a graph holds: its first coordinates after a rotation that puts most of it there.

The rotation is that of the principal components, not centred, of a sample (Pearson 1901): so a cosine of the few is
nearest to that of the whole, and the graph proposes candidates that are then compared by the whole vectors.

N vectors, D dimension, E numbers of a vector in the graph
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import check_npy
from protclip.errors import DataError
from protclip.index.exact import BLOCK_ROWS, exact_search

ROTATION_FILE = "rotation.npy"
SAMPLE_ROWS = 20_000
"""Rows from which the rotation is computed, at most."""
RUN_ROWS = 500
"""Neighbours that are sampled together, so that few files are read."""
WIDTHS = (64, 96, 128, 192, 256, 384)
"""The values of E that are tried."""
NUM_QUERIES, DEPTH, CANDIDATES = 500, 10, 20
"""Rows of the sample whose nearest must be among the candidates by the few numbers."""
_SHORT = 1e-6


@dataclass(frozen=True, slots=True)
class Rotation:
    """Of a compact index."""

    axes_ED: NDArray[np.float32]
    """Orthonormal: a graph holds what lies along each."""
    mean_D: NDArray[np.float32]
    """About that of the vectors, beside which the whole ones are stored."""

    @property
    def width(self) -> int:
        """E."""
        return len(self.axes_ED)


def write_rotation(path: str, rotation: Rotation) -> None:
    """Write a rotation: (D, E + 1) float32, the mean last."""
    columns = np.column_stack([rotation.axes_ED.T, rotation.mean_D]).astype("<f4")
    with files.atomic_write(path) as stream:
        np.save(stream, columns, allow_pickle=False)


def read_rotation(path: str | None) -> Rotation | None:
    """Read a rotation; None where there is none.

    Raises:
        DataError: if it is no such file.
    """
    if path is None:
        return None
    with files.local_copy(path) as local:
        check_npy(local)
        columns: NDArray[np.float32] = np.load(local, allow_pickle=False)
    if columns.ndim != 2 or 0 in columns.shape or columns.dtype != np.dtype("<f4") or not np.isfinite(columns).all():
        raise DataError(f"{path}: is no rotation of vectors; make the index again.")
    return Rotation(np.ascontiguousarray(columns[:, :-1].T), columns[:, -1].copy())


def sample_rows(count: int, seed: int) -> NDArray[np.int64]:
    """The rows of a sample, upwards: runs of neighbours, spread over all."""
    if count <= SAMPLE_ROWS:
        return np.arange(count)
    rng = np.random.default_rng([seed, 2])
    runs = np.sort(rng.choice(count // RUN_ROWS, SAMPLE_ROWS // RUN_ROWS, replace=False))
    return (runs[:, None] * RUN_ROWS + np.arange(RUN_ROWS)).ravel()


def fit(vectors_ND: NDArray[np.float32], width: int | None, wanted: float) -> Rotation:
    """The rotation by a sample; of width 0 where no few numbers will do.

    Args:
        vectors_ND: each vector once.
        width: E; None to choose it.
        wanted: as of ``choose_width``.
    """
    components_DD = principal_components(vectors_ND)
    width = choose_width(vectors_ND, components_DD, wanted) if width is None else width
    return Rotation(components_DD[: width or 0], vectors_ND.mean(axis=0))


def principal_components(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Orthonormal directions, each a row of (D, D), by how much of the vectors lies along each, downwards."""
    moments_DD = np.zeros((vectors_ND.shape[1],) * 2)
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        block = vectors_ND[start : start + BLOCK_ROWS]
        moments_DD += block.T.astype(np.float64) @ block
    _, components_DD = np.linalg.eigh(moments_DD)
    return np.ascontiguousarray(components_DD[:, ::-1].T, np.float32)


def project(vectors_ND: NDArray[np.float32], axes_ED: NDArray[np.float32]) -> NDArray[np.float32]:
    """The few numbers of each vector, of unit length, (N, E); the first axis for one that has next to nothing there."""
    few_NE = np.empty((len(vectors_ND), len(axes_ED)), np.float32)
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        # Row by row in one order of summands, so that company never changes a projection.
        part = np.einsum("nd,ed->ne", vectors_ND[start : start + BLOCK_ROWS], axes_ED)
        length_N1 = np.linalg.norm(part, axis=1, keepdims=True)
        part[length_N1[:, 0] < _SHORT] = np.eye(1, part.shape[1])
        few_NE[start : start + BLOCK_ROWS] = part / np.where(length_N1 < _SHORT, 1, length_N1)
    return few_NE


def choose_width(vectors_ND: NDArray[np.float32], components_DD: NDArray[np.float32], wanted: float) -> int | None:
    """The smallest E with which the nearest by the whole vectors are among few candidates; None where none will do.

    Args:
        vectors_ND: a sample, each vector once.
        components_DD: its principal components.
        wanted: recall at 10 of the index; half of what it may miss may be missed here.
    """
    dimension = vectors_ND.shape[1]
    if len(vectors_ND) < 2 * NUM_QUERIES:
        return None
    asked = np.linspace(0, len(vectors_ND) - 1, NUM_QUERIES).astype(np.int64)
    nearest_QK = exact_search(vectors_ND, vectors_ND[asked], DEPTH + 1)[1]
    for width in WIDTHS:
        if width >= dimension:
            break
        few_NE = project(vectors_ND, components_DD[:width])
        found_QK = exact_search(few_NE, few_NE[asked], CANDIDATES + 1)[1]
        there = [np.isin(near, found).mean() for near, found in zip(nearest_QK, found_QK, strict=True)]
        if np.mean(there) >= 1 - (1 - wanted) / 2:
            return width
    return None
