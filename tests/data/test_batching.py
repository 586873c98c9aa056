"""Batches by token budget, and padding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from protclip.data.batching import run_batches, token_budget_batches
from protclip.data.collate import pad
from protclip.errors import DataError

pytestmark = pytest.mark.unit


def test_every_item_comes_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, size=500).tolist()
    batches = list(token_budget_batches(lengths, 1000))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(sum(lengths[i] for i in batch) <= 1000 for batch in batches)
    # Sorted, and filled: the next item would not have fitted.
    assert all(sum(lengths[i] for i in batch) + lengths[after[0]] > 1000 for batch, after in pairwise(batches))
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)


def test_attention_is_bounded_as_tokens_are() -> None:
    # Two of 1,500 tokens have 4.5 million squares, 4,000 tokens of budget allow 4.1 million.
    assert [batch.tolist() for batch in token_budget_batches([1500, 1500, 10], 4000)] == [[0], [1, 2]]


def out_of_memory_above(limit: int, lengths: list[int], computed: list[int]) -> Callable[[np.ndarray], None]:
    def compute(batch: np.ndarray) -> None:
        if sum(lengths[i] for i in batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        computed.extend(batch.tolist())

    return compute


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    lengths, computed = [30, 40, 50, 60, 20], list[int]()
    run_batches(lengths, 1000, out_of_memory_above(60, lengths, computed))
    assert sorted(computed) == [0, 1, 2, 3, 4]


def test_an_item_that_does_not_fit_alone_is_refused_with_the_reason() -> None:
    lengths, computed, refused = [30, 400, 50], list[int](), list[tuple[int, str]]()
    compute = out_of_memory_above(60, lengths, computed)
    run_batches(lengths, 1000, compute, refuse=lambda item, why: refused.append((item, why)))
    assert sorted(computed) == [0, 2]
    ((item, why),) = refused
    assert item == 1
    assert "400 tokens" in why
    assert "out of memory" in why
    with pytest.raises(DataError, match="item 2 of 3"):
        run_batches(lengths, 1000, compute)


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(_batch: np.ndarray) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_batches([3, 4], 10, broken)


def test_an_item_over_the_budget_is_alone_and_no_items_are_no_batches() -> None:
    assert [batch.tolist() for batch in token_budget_batches([5, 2000, 7], 1000)] == [[1], [2, 0]]
    assert list(token_budget_batches([], 1000)) == []


def test_pad_fills_and_masks() -> None:
    ids, mask = pad([[4, 5, 6], [7]], pad_id=1)
    assert ids.tolist() == [[4, 5, 6], [7, 1, 1]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
