"""The picture of the hits is that of principal components, and the same picture each time."""

from __future__ import annotations

import numpy as np
import pytest
from index_folders import unit_vectors

from protclip.pca import plane_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("shape", [(40, 8), (6, 30)])
def test_the_plane_is_that_of_the_singular_vectors(shape):
    vectors = unit_vectors(*shape, seed=3)
    places = plane_of(vectors)
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    assert np.abs(places) == pytest.approx(np.abs(left * values)[:, :2], abs=1e-5)
    assert places.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_distances_between_points_of_a_plane_are_kept():
    flat = np.zeros((30, 9), np.float32)
    flat[:, [2, 5]] = np.random.default_rng(1).standard_normal((30, 2))
    places = plane_of(flat)

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=2)

    assert distances(places) == pytest.approx(distances(flat), abs=1e-5)


def test_the_furthest_coordinate_is_positive_whatever_the_order_of_the_vectors():
    vectors = unit_vectors(50, 12, seed=5)
    places = plane_of(vectors)
    assert (places.max(axis=0) >= -places.min(axis=0)).all()
    order = np.random.default_rng(0).permutation(50)
    assert plane_of(vectors[order]) == pytest.approx(places[order], abs=1e-6)


@pytest.mark.parametrize(("shape", "zero"), [((0, 4), [0, 1]), ((1, 4), [0, 1]), ((2, 4), [1]), ((5, 1), [1])])
def test_where_there_is_no_second_component_it_is_0(shape, zero):
    places = plane_of(np.random.default_rng(2).standard_normal(shape).astype(np.float32))
    assert places.shape == (shape[0], 2) and np.abs(places[:, zero]).max(initial=0) < 1e-6
