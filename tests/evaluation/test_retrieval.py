"""Retrieval in both directions, by group, beside chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import make_task

from protclip.errors import DataError
from protclip.evaluation.retrieval import CUTOFFS, retrieval
from protclip.evaluation.scores import row_metric
from protclip.evaluation.task import Benchmark, Split
from protclip.metrics.intervals import bootstrap_interval
from protclip.metrics.ranking import recall

pytestmark = pytest.mark.unit


def pairs(proteins: list[int], texts: list[int], num: int) -> Benchmark:
    names = tuple(str(i) for i in range(num))
    split = Split(proteins_NK=np.array(proteins)[:, None], labels=np.array(texts))
    return Benchmark(ids=names, sequences=names, splits={"test": split}, texts=names)


def noisy(num: int, noise: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    protein = generator.standard_normal((num, 16))
    return protein.astype(np.float32), (protein + noise * generator.standard_normal((num, 16))).astype(np.float32)


def test_a_planted_signal_is_found_and_shuffled_pairs_are_at_chance() -> None:
    protein, text = noisy(200, 0.3)
    rows = list(range(200))
    found = retrieval(pairs(rows, rows, 200), protein, text)
    assert found.metrics["mrr"] >= 0.8
    assert found.metrics["protein_to_text_mrr"] >= 0.8
    none = retrieval(pairs(rows, np.random.default_rng(1).permutation(200).tolist(), 200), protein, text).metrics
    for name in ("mrr", "recall@10", "recall@100", "protein_to_text_mrr", "protein_to_text_recall@100"):
        direction, _, measure = name.rpartition("_") if "text" in name else ("", "", name)
        assert none[name] == pytest.approx(none[f"chance_{direction + '_' if direction else ''}{measure}"], abs=0.08)
    assert none["chance_recall@100"] == pytest.approx(0.5)
    assert none["chance_median_rank"] == pytest.approx(100.5)


def test_what_shares_a_text_is_right_and_a_protein_that_comes_twice_is_one_candidate() -> None:
    # Proteins 0, 1 and 2 at right angles; text 0 is of proteins 0 and 1 and nearest to 1, text 1 is of protein 2.
    protein = np.eye(3, dtype=np.float32)
    text = np.array([[0.1, 0.9, 0.2], [0.0, 0.9, 0.1], [0.0, 0.0, 0.0]], np.float32)
    found = retrieval(pairs([2, 0, 2, 1], [1, 0, 1, 0], 3), protein, text)
    assert found.predictions.tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]]
    assert found.metrics["recall@1"] == 0.5
    assert found.metrics["mrr"] == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    # Text 0 has its proteins first and third: 1 + 1/2 of 1 + 1/log2(3); text 1 has its own second.
    ideal = 1 + 1 / np.log2(3)
    ndcg = ((1 + 1 / 2) / ideal + 1 / np.log2(3)) / 2
    assert found.metrics["by_query_ndcg"] == pytest.approx(ndcg)
    assert found.metrics["chance_recall@1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 / 3) / 4)
    # Proteins 1 and 2 are nearer to the other text: 0.9 / √0.82 and 0.9 / √0.86, 0.1 / √0.82 and 0.2 / √0.86.
    assert found.metrics["protein_to_text_recall@1"] == 0.25


def test_a_group_is_its_own_rows_and_a_row_may_have_none() -> None:
    protein, text = noisy(60, 1.5, seed=2)
    rows = list(range(60))
    organism = ("", *("mouse" if i % 3 else "yeast" for i in rows[1:-1]), "")
    found = retrieval(replace(pairs(rows, rows, 60), groups={"organism": organism}), protein, text)
    places = found.predictions
    assert (found.metrics["rows[organism=mouse]"], found.metrics["rows[organism=yeast]"]) == (39, 19)
    for value in ("mouse", "yeast"):
        own = [i for i in rows if organism[i] == value]
        assert found.metrics[f"recall@5[organism={value}]"] == pytest.approx(recall(places[own], 5).mean())
    assert not [name for name in found.metrics if "=]" in name]


def test_groups_of_all_rows_make_up_the_whole() -> None:
    protein, text = noisy(60, 1.5, seed=2)
    rows = list(range(60))
    organism = tuple("mouse" if i % 3 else "yeast" for i in rows)
    found = retrieval(replace(pairs(rows, rows, 60), groups={"organism": organism}), protein, text).metrics
    for name in (*(f"recall@{k}" for k in CUTOFFS), "mrr", "ndcg", "protein_to_text_mrr"):
        together = 40 * found[f"{name}[organism=mouse]"] + 20 * found[f"{name}[organism=yeast]"]
        assert together / 60 == pytest.approx(found[name]), name


def test_intervals_are_made_of_the_predictions() -> None:
    protein, text = noisy(100, 1.0, seed=3)
    rows = list(range(100))
    found = retrieval(pairs(rows, rows, 100), protein, text)
    for metric in ("recall@1", "mrr"):
        of_rows = row_metric(make_task("retrieval", metric).metric, np.array(rows), found.predictions)
        assert of_rows(np.arange(100)) == pytest.approx(found.metrics[metric])
        low, high = bootstrap_interval([of_rows], 100, seed=0)
        assert low < found.metrics[metric] < high


def test_texts_without_embeddings_are_refused() -> None:
    protein, text = noisy(4, 0.1)
    with pytest.raises(DataError, match=r"3 texts have features, the benchmark has 4; embed"):
        retrieval(pairs([0], [0], 4), protein, text[:3])
