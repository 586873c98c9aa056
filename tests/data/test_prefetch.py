"""What is made ahead: order, errors, and that the thread ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from tiny_model import make_batch, random_pairs, tiny_model, tokenized

from protclip.config import ObjectivesConfig
from protclip.data.collate import Batch
from protclip.data.prefetch import ahead, prefetched

pytestmark = pytest.mark.unit


def numbers(made: list[int], *, bad: int | None = None) -> Iterator[int]:
    for number in range(5):
        if number == bad:
            raise ValueError(f"number {number} is bad")
        made.append(number)
        yield number


def prefetch_threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_items_come_in_order_and_at_most_one_is_made_ahead() -> None:
    made: list[int] = []
    taken = []
    for item in ahead(numbers(made)):
        taken.append(item)
        assert len(made) <= len(taken) + 1
    assert taken == made == list(range(5))
    assert prefetch_threads() == 0


def test_the_next_item_is_made_while_one_is_used() -> None:
    second_begins = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        second_begins.set()
        yield 1

    for item in ahead(items()):
        assert item or second_begins.wait(timeout=30)


def test_an_error_comes_in_its_item_s_place() -> None:
    taken: list[int] = []
    stream = ahead(numbers([], bad=3))
    with pytest.raises(ValueError, match="number 3 is bad"):
        for item in stream:
            taken.append(item)
    assert taken == [0, 1, 2]
    assert prefetch_threads() == 0


def test_the_thread_ends_when_the_caller_stops_early() -> None:
    made: list[int] = []
    stream = ahead(numbers(made))
    assert list(islice(stream, 2)) == [0, 1]
    assert prefetch_threads() == 1
    stream.close()  # type: ignore[attr-defined]
    assert prefetch_threads() == 0
    assert len(made) <= 3


def parts() -> Iterator[tuple[list[Batch], int]]:
    model = tiny_model(objectives=ObjectivesConfig())
    for i in range(4):
        yield [make_batch(model, tokenized(model, random_pairs(6, seed=i + j))) for j in range(2)], i


def check_same(device: torch.device) -> None:
    for (batches, i), (wanted, j) in zip(prefetched(parts(), device), parts(), strict=True):
        assert i == j
        for batch, other in zip(batches, wanted, strict=True):
            assert batch.protein_ids_BL.device.type == device.type
            found, expected = [], []
            batch.map(lambda tensor, found=found: found.append(tensor.cpu()) or tensor)  # type: ignore[misc]
            other.map(lambda tensor, expected=expected: expected.append(tensor) or tensor)  # type: ignore[misc]
            assert len(found) == len(expected) > 10
            assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_batches_and_notes_are_the_same() -> None:
    check_same(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_and_notes_are_the_same_on_cuda() -> None:
    check_same(torch.device("cuda", 0))
