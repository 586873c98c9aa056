"""Likeness of functions, and edges of a knowledge graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import make_benchmark, make_task

from protclip.evaluation.graph import CUTOFFS, bridged_graph, graph
from protclip.evaluation.scores import row_metric
from protclip.evaluation.similarity import similarity
from protclip.evaluation.task import Benchmark
from protclip.evaluation.training import TuneConfig, Workplace

pytestmark = pytest.mark.unit


def test_likeness_is_that_worked_by_hand() -> None:
    features = np.array([[1, 0], [0, 2], [3, 0]], np.float32)
    benchmark = make_benchmark(np.array([[0, 1], [0, 2], [1, 2]]).repeat(5, 0), np.array([0.1, 0.9, 0.2]).repeat(5))
    test = benchmark.splits["test"]
    wanted = {
        "manhattan": {(0, 1): 0.0, (0, 2): 0.5, (1, 2): 0.0},
        "euclidean": {(0, 1): 1 - 5**0.5 / 3, (0, 2): 0.5, (1, 2): 1 - 13**0.5 / 5},
        "cosine": {(0, 1): 0.0, (0, 2): 1.0, (1, 2): 0.0},
    }
    for measure, values in wanted.items():
        found = similarity(make_task("similarity"), benchmark, features, measure=measure)  # type: ignore[arg-type]
        assert found.predictions == pytest.approx([values[a, b] for a, b in test.proteins_NK.tolist()])
        assert found.metrics["spearman"] == found.metrics[f"spearman_{measure}"]


def test_likeness_of_functions_is_found_and_of_shuffled_ones_not() -> None:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((40, 8)).astype(np.float32)
    pairs = np.array([(a, b) for a in range(40) for b in range(a)])
    alike = np.array([features[a] @ features[b] for a, b in pairs]) + 0.1 * generator.standard_normal(len(pairs))
    found = similarity(make_task("similarity"), make_benchmark(pairs, alike), features, measure="cosine")
    assert found.metrics["spearman"] >= 0.8
    none = similarity(make_task("similarity"), make_benchmark(pairs, generator.permutation(alike)), features)
    assert abs(none.metrics["spearman"]) < 0.25


def edges(num_proteins: int, num_texts: int, seed: int) -> tuple[Benchmark, NDArray[np.float32], NDArray[np.float32]]:
    """Proteins whose text space is theirs turned; each has an edge to its two nearest texts."""
    generator = np.random.default_rng(seed)
    protein = generator.standard_normal((num_proteins, 8)).astype(np.float32)
    text = generator.standard_normal((num_texts, 6)).astype(np.float32)
    turned = protein @ generator.standard_normal((8, 6))
    nearest = np.argsort(-turned @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T, axis=1)[:, :2]
    heads = np.arange(num_proteins).repeat(2)
    benchmark = make_benchmark(
        heads[:, None], nearest.ravel(), texts=tuple(f"text {i}" for i in range(num_texts)), seed=seed
    )
    return benchmark, protein, text


@pytest.mark.parametrize("direction", ["protein_to_text", "text_to_protein"])
def test_ranks_are_those_of_a_loop_without_the_other_known_ends(direction: str) -> None:
    benchmark, protein, text = edges(30, 12, seed=1)
    protein = protein[:, :6]
    found = graph(benchmark, protein, text, direction=direction)  # type: ignore[arg-type]
    cosine = (protein / np.linalg.norm(protein, axis=1, keepdims=True)) @ (
        text / np.linalg.norm(text, axis=1, keepdims=True)
    ).T
    known = {
        (int(p), int(t))
        for one in benchmark.splits.values()
        for p, t in zip(one.proteins_NK[:, 0], one.labels, strict=True)
    }
    test = benchmark.splits["test"]
    ranks = []
    for p, t in zip(test.proteins_NK[:, 0].tolist(), test.labels.tolist(), strict=True):
        if direction == "protein_to_text":
            others = [cosine[p, other] for other in range(12) if other != t and (p, other) not in known]
        else:
            others = [cosine[other, t] for other in range(30) if other != p and (other, t) not in known]
        ranks.append(1 + sum(score > cosine[p, t] for score in others))
    assert (found.predictions[:, 0] + 1).tolist() == ranks
    assert found.metrics["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
    for k in CUTOFFS:
        assert found.metrics[f"hits@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))
    of_rows = row_metric("mrr", test.labels, found.predictions)
    assert of_rows(np.arange(len(ranks))) == pytest.approx(found.metrics["mrr"])


def test_chance_is_among_what_is_left_after_filtering() -> None:
    benchmark, protein, text = edges(30, 12, seed=1)
    found = graph(benchmark, protein[:, :6], text, direction="protein_to_text")
    assert found.metrics["chance_hits@1"] == pytest.approx(1 / 11)  # the other of the two edges is left out
    collapsed = graph(benchmark, np.ones((30, 6), np.float32), text, direction="protein_to_text")
    assert collapsed.metrics["chance_mrr"] == found.metrics["chance_mrr"]
    same = graph(benchmark, protein[:, :6], np.ones((12, 6), np.float32), direction="protein_to_text")
    assert same.metrics["mrr"] == pytest.approx(same.metrics["chance_mrr"])


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["protein_to_text", "text_to_protein"])
def test_a_bridge_is_learned_and_from_shuffled_edges_none(direction: str, tmp_path: Path) -> None:
    benchmark, protein, text = edges(600, 20, seed=2)
    config = TuneConfig(batch_size=64, epochs=40, hidden_size=64)

    def mrr(benchmark: Benchmark, name: str) -> tuple[float, float]:
        found = bridged_graph(
            benchmark,
            protein,
            text,
            direction=direction,  # type: ignore[arg-type]
            config=config,
            seed=0,
            place=Workplace(run_dir=str(tmp_path / name)),
        )
        return found.metrics["mrr"], found.metrics["chance_mrr"]

    found, chance = mrr(benchmark, "planted")

    assert found >= 0.5
    generator = np.random.default_rng(0)
    mixed = {
        name: replace(one, labels=one.labels if name == "test" else generator.integers(0, 20, len(one.labels)))
        for name, one in benchmark.splits.items()
    }
    none, chance = mrr(replace(benchmark, splits=mixed), "shuffled")

    assert none == pytest.approx(chance, abs=0.08)
