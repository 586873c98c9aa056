"""Retrieval metrics on cases whose answer is known."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from protclip.errors import DataError
from protclip.metrics.retrieval import chance, check_variety, retrieval_metrics, validation_metrics

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


def test_embeddings_that_are_no_numbers_find_nothing() -> None:
    rows = torch.full((50, 4), torch.nan)
    metrics = retrieval_metrics(rows, rows, torch.arange(50))
    assert metrics["text_to_protein"]["recall@10"] == metrics["protein_to_text"]["recall@10"] == 0.0
    protein = torch.eye(4)
    protein[2] = torch.nan  # it is last of all, for its own text as well
    metrics = retrieval_metrics(protein, torch.eye(4), torch.arange(4))
    assert metrics["text_to_protein"]["recall@1"] == metrics["protein_to_text"]["recall@1"] == 0.75


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


def test_valid_loss_is_over_the_prefixes_of_training() -> None:
    rows = torch.nn.functional.normalize(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    identity = torch.arange(64)[:, None].expand(64, 2)
    valid = partial(validation_metrics, identity_N2=identity, logit_scale=torch.tensor(1.0), batch_size=32)
    plain, whole, short = (valid(rows, rows, prefixes=prefixes)["gc"] for prefixes in ((), (4,), (2, 4)))
    cut = torch.nn.functional.normalize(rows[:, :2], dim=-1)
    assert plain == whole
    assert short == pytest.approx((plain + valid(cut, cut)["gc"]) / 2)


def test_chance_counts_the_right_answers_of_each_query() -> None:
    assert chance(torch.arange(500)) == pytest.approx({"recall@1": 0.002, "recall@5": 0.01, "recall@10": 0.02})
    assert chance(torch.arange(3))["recall@10"] == 1.0
    # Three of four texts are one: 3 queries with 3 right answers of 4, one with one of 4.
    assert chance(torch.tensor([7, 7, 7, 8]))["recall@1"] == pytest.approx((3 * 3 / 4 + 1 / 4) / 4)
    texts = torch.tensor([0] * 6 + [1] * 3 + [2] * 3)  # 12 pairs: 1 - C(6, 5) / C(12, 5), 1 - C(9, 5) / C(12, 5)
    wanted = (6 * (1 - 6 / 792) + 6 * (1 - 126 / 792)) / 12
    assert chance(texts)["recall@5"] == pytest.approx(wanted)


def test_random_embeddings_have_the_recall_of_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = torch.arange(300) // 20  # 15 texts, 20 pairs each
    found = []
    for _ in range(20):
        protein, text = (torch.nn.functional.normalize(torch.randn(300, 16, generator=generator)) for _ in range(2))
        found.append(retrieval_metrics(protein, text, texts)["text_to_protein"]["recall@10"])
    assert torch.tensor(found).mean() == pytest.approx(chance(texts)["recall@10"], abs=0.02)
    assert chance(texts)["recall@10"] > 10 * 10 / 300


def test_distinct_texts_and_proteins_stand_beside_the_recall() -> None:
    rows = torch.eye(6)
    identity = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 2], [3, 2], [4, 3]])
    metrics = validation_metrics(rows, rows, identity, torch.tensor(1.0), batch_size=6)
    assert (metrics["num_pairs"], metrics["num_proteins"], metrics["num_texts"]) == (6, 5, 4)
    assert metrics["chance"] == chance(identity[:, 1])


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (1, [7] * 40, "1 distinct text of"),
        (0, [7] * 40, "1 distinct protein of"),
        (1, [7] * 30 + list(range(10)), "10 distinct texts"),
    ],
)
def test_pairs_too_uniform_to_measure_anything_are_refused(column: int, values: list[int], words: str) -> None:
    identity = torch.arange(40)[:, None].repeat(1, 2)
    check_variety(identity, "pairs")
    identity[:, column] = torch.tensor(values)
    with pytest.raises(DataError, match=f"pairs: .*{words}.* a random order puts a right answer first for"):
        check_variety(identity, "pairs")
