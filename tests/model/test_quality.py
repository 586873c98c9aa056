"""How good a model is, as its checkpoint records it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from protclip.metrics.retrieval import retrieval_metrics, validation_metrics
from protclip.model.quality import MAX_PAIRS, NOT_MEASURED, Quality, quality_note, quality_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("recall", "chance", "is_weak"),
    [(0.1, 0.001, False), (0.099, 0.001, True), (0.3, 0.03, False), (0.29, 0.03, True), (1.0, 0.2, True)],
)
def test_weak_is_below_a_tenth_or_below_ten_times_chance(recall: float, chance: float, is_weak: bool) -> None:
    quality = Quality(recall_at_1=recall, chance=chance, num_pairs=100)
    assert quality.is_weak == is_weak
    assert (quality_note(quality) is None) != is_weak


@pytest.mark.parametrize(("num_train_pairs", "is_weak"), [(None, False), (9_999, True), (10_000, False)])
def test_weak_is_whatever_was_trained_on_few_pairs(num_train_pairs: int | None, is_weak: bool) -> None:
    quality = quality_of(
        {"valid": {"num_pairs": 500, "text_to_protein": {"recall@1": 0.9}, "chance": {"recall@1": 0.002}}},
        {"train_pairs": num_train_pairs},
    )
    assert quality is not None and quality.is_weak == is_weak
    assert ("trained on 9,999 pairs only; the right protein comes first for 90.0%" in str(quality)) == is_weak


def test_the_line_says_what_was_measured() -> None:
    assert str(Quality(recall_at_1=0.31, chance=0.001, num_pairs=1000)) == (
        "the right protein comes first for 31.0% of 1,000 held-out texts (0.1% by chance)"
    )
    assert str(Quality(recall_at_1=0.05, chance=0.0082, num_pairs=122)).startswith("a weak model, for trials: the")


@pytest.mark.parametrize("num_pairs", [MAX_PAIRS, MAX_PAIRS + 50])
def test_it_is_of_a_thousand_pairs_at_most(num_pairs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    protein_ND, noise_ND = torch.randn(2, num_pairs, 16, generator=generator)
    text_ND = protein_ND + 2 * noise_ND
    identity_N2 = torch.arange(num_pairs)[:, None].expand(num_pairs, 2)
    valid = validation_metrics(protein_ND, text_ND, identity_N2, torch.tensor(1.0), batch_size=64)
    first = retrieval_metrics(protein_ND[:MAX_PAIRS], text_ND[:MAX_PAIRS], identity_N2[:MAX_PAIRS, 1])
    quality = quality_of({"epoch": 1, "valid": valid}, None)
    assert quality == Quality(
        recall_at_1=first["text_to_protein"]["recall@1"], chance=pytest.approx(1e-3), num_pairs=MAX_PAIRS
    )
    assert valid["num_pairs"] == num_pairs
    assert 0 < quality.recall_at_1 < 1


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        {},
        "good",
        {"valid": 1},
        {"valid": {"loss": 1.25, "text_to_protein": {"recall@10": 0.875}}},
        {"valid": {"num_pairs": 10, "text_to_protein": {"recall@1": math.nan}, "chance": {"recall@1": 0.1}}},
        {"valid": {"num_pairs": 10, "text_to_protein": {"recall@1": "all"}, "chance": {"recall@1": 0.1}}},
    ],
)
def test_what_was_not_measured_is_said_to_be_so(metrics: Any) -> None:
    assert quality_of(metrics, metrics) is None
    assert quality_note(None) == NOT_MEASURED
