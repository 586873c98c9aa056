"""Ranks, recall, MRR and nDCG against loops over every order that ties allow."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from protclip.metrics import ranking
from protclip.metrics.ranking import expected, places_of_chance, rank_all, ranking_metrics, recall, reciprocal_rank

pytestmark = pytest.mark.unit

CUTOFFS = (1, 2, 3, 5)


def by_hand(scores: list[float], right: set[int]) -> dict[str, float]:
    """One query: means over all ways in which its right candidates lie among those that tie with them."""
    groups = [[i for i, score in enumerate(scores) if score == value] for value in sorted(set(scores), reverse=True)]
    found: dict[str, float] = {}
    gain, before = 0.0, 0
    for group in groups:
        num_right = len(right & set(group))
        orders = list(combinations(range(before + 1, before + len(group) + 1), num_right))
        gain += sum(1 / np.log2(1 + place) for order in orders for place in order) / len(orders)
        if num_right and not found:
            ranks = [order[0] for order in orders]
            found = {f"recall@{k}": float(np.mean([rank <= k for rank in ranks])) for k in CUTOFFS}
            found |= {"rank": float(np.mean(ranks)), "mrr": float(np.mean([1 / rank for rank in ranks]))}
        before += len(group)
    ideal = sum(1 / np.log2(2 + i) for i in range(len(right)))
    return {**found, "ndcg": gain / ideal}


def random_case(generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32], list[set[int]]]:
    """Few whole numbers, so that scores tie, and rows that come twice."""
    num, width = generator.integers(1, 8), generator.integers(1, 4)
    query, candidate = (generator.integers(-1, 2, (num, width)).astype(np.float32) for _ in range(2))
    candidate[generator.integers(num)] = candidate[0]
    texts = generator.integers(0, num, num)
    return query, candidate, [set(np.flatnonzero(texts == text).tolist()) for text in texts]


@pytest.mark.slow
def test_metrics_equal_a_loop_over_all_orders_on_500_cases_with_ties_and_duplicates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranking, "_SCORES_PER_BLOCK", 15)  # from 2 of 7 queries at once to all
    generator = np.random.default_rng(0)
    num_tied = num_shared = 0
    for _ in range(500):
        query, candidate, right = random_case(generator)
        places, ndcg = rank_all(query, candidate, [np.array(sorted(one)) for one in right])
        wanted = [by_hand((candidate @ one).tolist(), own) for one, own in zip(query, right, strict=True)]
        found = ranking_metrics(places, CUTOFFS)
        for name in (*(f"recall@{k}" for k in CUTOFFS), "mrr"):
            assert found[name] == pytest.approx(np.mean([one[name] for one in wanted]), abs=1e-12), name
        assert found["median_rank"] == pytest.approx(np.median([one["rank"] for one in wanted]))
        assert ndcg == pytest.approx([one["ndcg"] for one in wanted])
        num_tied += int((places[:, 1] > 0).any())
        num_shared += any(len(own) > 1 for own in right)
    assert num_tied > 200 < num_shared


@pytest.mark.slow
def test_hidden_candidates_are_as_if_they_were_not_there() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        query, candidate, right = random_case(generator)
        hidden = [set(np.flatnonzero(generator.random(len(candidate)) < 0.4).tolist()) - own for own in right]
        places, ndcg = rank_all(
            query, candidate, *([np.array(sorted(s), int) for s in sets] for sets in (right, hidden))
        )
        for i, (own, gone) in enumerate(zip(right, hidden, strict=True)):
            seen = [j for j in range(len(candidate)) if j not in gone]
            wanted = by_hand((candidate[seen] @ query[i]).tolist(), {seen.index(j) for j in own})
            assert recall(places, 2)[i] == pytest.approx(wanted["recall@2"])
            assert reciprocal_rank(places)[i] == pytest.approx(wanted["mrr"])
            assert ndcg[i] == pytest.approx(wanted["ndcg"])


def test_ndcg_with_ties_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    generator = np.random.default_rng(2)
    query, candidate = (generator.integers(-2, 3, (20, 2)).astype(np.float32) for _ in range(2))
    right = [np.sort(generator.choice(20, generator.integers(1, 6), replace=False)) for _ in range(20)]
    gains = np.zeros((20, 20))
    for i, own in enumerate(right):
        gains[i, own] = 1
    assert rank_all(query, candidate, right).ndcg_Q.mean() == pytest.approx(ndcg_score(gains, query @ candidate.T))


def test_ranks_are_those_worked_by_hand() -> None:
    # The right one of each query is: first; second; tied with two others behind one; below all, since it is no number.
    candidate = np.array([[3.0], [2.0], [1.0], [1.0], [1.0]], np.float32)
    places, _ = rank_all(np.ones((3, 1), np.float32), candidate, [np.array([0]), np.array([1]), np.array([3])])
    assert places.tolist() == [[0, 0, 1], [1, 0, 1], [2, 2, 1]]
    assert expected(places, lambda rank: rank) == pytest.approx([1, 2, 4])
    assert reciprocal_rank(places) == pytest.approx([1, 1 / 2, (1 / 3 + 1 / 4 + 1 / 5) / 3])
    assert recall(places, 3) == pytest.approx([1, 1, 1 / 3])
    candidate[2] = np.nan
    places, _ = rank_all(np.ones((1, 1), np.float32), candidate, [np.array([2])])
    assert places.tolist() == [[4, 0, 1]]


def test_a_collapsed_model_has_the_numbers_of_chance() -> None:
    rows = np.full((50, 8), 0.3, np.float32)
    places, _ = rank_all(rows, rows, [np.array([i]) for i in range(50)])
    assert places.tolist() == places_of_chance(np.ones(50, np.int64), 50).tolist()
    found = ranking_metrics(places, (1, 10))
    assert found == pytest.approx(
        {"recall@1": 0.02, "recall@10": 0.2, "median_rank": 25.5, "mrr": np.mean(1 / np.arange(1, 51))}
    )


def test_equal_candidates_tie_whatever_their_place_in_the_product() -> None:
    generator = np.random.default_rng(0)
    query = generator.standard_normal((33, 37)).astype(np.float32)
    for num in (5, 13):  # a plain product of such sizes rounds some of the equal columns differently
        half = generator.standard_normal((num, 37)).astype(np.float32)
        for i in range(num):
            places, _ = rank_all(query, np.concatenate([half, half]), [np.array([i])] * 33)
            assert (places[:, 1:] == 1).all()
