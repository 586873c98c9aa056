"""Batches by token budget, and padding."""

from __future__ import annotations

import numpy as np
import pytest

from protclip.data.batching import token_budget_batches
from protclip.data.collate import pad

pytestmark = pytest.mark.unit


def test_every_item_comes_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, size=500).tolist()
    batches = list(token_budget_batches(lengths, 1000))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 1000 for batch in batches)


def test_an_item_over_the_budget_is_alone_and_no_items_are_no_batches() -> None:
    assert [batch.tolist() for batch in token_budget_batches([5, 2000, 7], 1000)] == [[1], [2, 0]]
    assert list(token_budget_batches([], 1000)) == []


def test_pad_fills_and_masks() -> None:
    ids, mask = pad([[4, 5, 6], [7]], pad_id=1)
    assert ids.tolist() == [[4, 5, 6], [7, 1, 1]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
