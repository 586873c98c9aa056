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
    chosen = np.arange(1, 50, 3)
    assert np.array_equal(
        exact_search(vectors, queries, 5, rows=chosen)[1], chosen[np.argsort(-full[:, chosen])[:, :5]]
    )
    np.testing.assert_allclose(scores, -np.sort(-full, axis=1)[:, :12], atol=1e-6)


def test_equal_scores_come_by_row_even_where_they_are_cut(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK_ROWS", 2)
    vectors = np.array([[0, 1], [1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert exact_search(vectors, np.array([[1, 0]], np.float32), 2)[1].tolist() == [[1, 3]]
    assert exact_search(vectors, np.array([[1, 0]], np.float32), 4)[1].tolist() == [[1, 3, 4, 0]]


def test_more_answers_than_vectors_gives_all_of_them():
    assert exact_search(unit_vectors(3), unit_vectors(2), 10)[1].shape == (2, 3)


def test_a_score_does_not_depend_on_place_company_or_way_of_search():
    vectors, queries = unit_vectors(1003, 37), unit_vectors(7, 37, seed=1)
    scores, rows = exact_search(vectors, queries, 20)
    for i, (query, found) in enumerate(zip(queries, rows, strict=True)):
        for place in (0, 5, 19):
            alone = exact_search(vectors[found[place] : found[place] + 1], query[None], 1)[0]
            assert alone[0, 0] == scores[i, place]
    shuffled = np.random.default_rng(0).permutation(1003)
    again, places = exact_search(vectors[shuffled], queries[::-1], 20)
    assert np.array_equal(again[::-1], scores) and np.array_equal(shuffled[places[::-1]], rows)
