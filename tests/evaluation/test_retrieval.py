"""Retrieval metrics on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch

from protclip.evaluation.retrieval import chance, retrieval_metrics, validation_metrics

pytestmark = pytest.mark.unit


def test_perfect_pairs_are_all_first() -> None:
    rows = torch.eye(20)
    metrics = retrieval_metrics(rows, rows, torch.arange(20))
    for direction in ("text_to_protein", "protein_to_text"):
        assert metrics[direction]["recall@1"] == metrics[direction]["mrr"] == 1.0
        assert metrics[direction]["median_rank"] == 1.0


def test_ranks_are_those_worked_by_hand() -> None:
    # Each protein's own text is second best of three.
    protein = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    text = torch.tensor([[0.5, 0.9, 0], [0, 0.5, 0.9], [0.9, 0, 0.5]])
    metrics = retrieval_metrics(protein, text, torch.arange(3))
    assert metrics["text_to_protein"]["recall@1"] == 0.0
    assert metrics["text_to_protein"]["recall@5"] == 1.0
    assert metrics["text_to_protein"]["mrr"] == pytest.approx(0.5)


def test_a_collapsed_model_gains_nothing_from_ties() -> None:
    rows = torch.ones(50, 4) / 2
    metrics = retrieval_metrics(rows, rows, torch.arange(50))
    assert metrics["text_to_protein"]["recall@10"] == 0.0
    assert metrics["text_to_protein"]["median_rank"] == 50.0


def test_the_same_text_under_another_accession_is_right_too() -> None:
    protein = torch.eye(3)
    text = torch.tensor([[0, 1.0, 0], [1.0, 0, 0], [0, 0, 1.0]])  # texts 0 and 1 point at each other's protein
    assert retrieval_metrics(protein, text, torch.tensor([7, 7, 8]))["text_to_protein"]["recall@1"] == 1.0
    assert retrieval_metrics(protein, text, torch.tensor([6, 7, 8]))["text_to_protein"]["recall@1"] < 1.0


def test_valid_loss_of_an_uninformed_model_is_that_of_a_guess() -> None:
    rows = torch.ones(64, 4) / 2
    identity = torch.arange(64)[:, None].expand(64, 2)
    loss = validation_metrics(rows, rows, identity, torch.tensor(1.0), batch_size=32)["gc"]
    assert loss == pytest.approx(torch.tensor(32.0).log().item(), rel=1e-5)
    assert validation_metrics(rows[:5], rows[:5], identity[:5], torch.tensor(1.0), batch_size=32)["num_pairs"] == 5


def test_chance_is_k_of_n() -> None:
    assert chance(500) == {"recall@1": 0.002, "recall@5": 0.01, "recall@10": 0.02}
    assert chance(3)["recall@10"] == 1.0
