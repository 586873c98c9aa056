from __future__ import annotations

import numpy as np
import pytest
from index_folders import unit_vectors

from protclip.index import exact
from protclip.index.exact import exact_search

pytestmark = pytest.mark.unit


def test_it_finds_what_a_full_sort_finds_across_blocks(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK_ROWS", 7)
    vectors, queries = unit_vectors(50), unit_vectors(5, seed=1)
    scores, rows = exact_search(vectors, queries, 12)
    full = queries @ vectors.T
    assert np.array_equal(rows, np.argsort(-full, axis=1, kind="stable")[:, :12])
    np.testing.assert_allclose(scores, -np.sort(-full, axis=1)[:, :12], atol=1e-6)


def test_equal_scores_come_by_row_even_where_they_are_cut(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK_ROWS", 2)
    vectors = np.array([[0, 1], [1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert exact_search(vectors, np.array([[1, 0]], np.float32), 2)[1].tolist() == [[1, 3]]
    assert exact_search(vectors, np.array([[1, 0]], np.float32), 4)[1].tolist() == [[1, 3, 4, 0]]


def test_more_answers_than_vectors_gives_all_of_them():
    assert exact_search(unit_vectors(3), unit_vectors(2), 10)[1].shape == (2, 3)
