"""Batches made while the step before them runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from protclip.data.collate import Batch

Item = TypeVar("Item")
Note = TypeVar("Note")


def prefetched(parts: Iterator[tuple[list[Batch], Note]], device: torch.device) -> Iterator[tuple[list[Batch], Note]]:
    """Micro-batches on the device, with what goes along with them, in order.

    On CUDA the next part is made by a thread, and copied from pinned memory on a stream of its own, while one is used.
    On a CPU the step has no idle core to leave to a thread.
    """
    if device.type != "cuda":
        for batches, note in parts:
            yield [batch.to(device) for batch in batches], note
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied() -> Iterator[tuple[list[Batch], Note, torch.cuda.Event]]:
        for batches, note in parts:
            with torch.cuda.stream(stream):
                moved = [
                    batch.map(lambda tensor: tensor.pin_memory().to(device, non_blocking=True)) for batch in batches
                ]
            yield moved, note, stream.record_event()

    def used(tensor: Tensor) -> Tensor:
        tensor.record_stream(torch.cuda.current_stream(device))  # its memory is not given to the next copy before
        return tensor

    for batches, note, copy in ahead(copied()):
        torch.cuda.current_stream(device).wait_event(copy)
        yield [batch.map(used) for batch in batches], note


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in order, the next one made by a thread while one is used.

    An error comes in its item's place. Where the caller stops early, the thread ends with the item that it is making.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item
