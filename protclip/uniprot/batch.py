"""A batch: entries that stand together in a file, as the columns that the sampling decides on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from protclip.uniprot.entry import BadEntry, Entry

BATCH_ENTRIES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryBatch:
    """Some entries of a file in its order; where a format allows it, they are made only when asked for.

    Only what is asked for is checked to the end: an entry that stands in the columns is sound in its structure, and may
    still come out bad for its sequence or another field that the columns do not need.
    """

    reviewed: np.ndarray
    """int8 (N,): 1, 0, or -1 where the entry does not say."""
    existence: np.ndarray
    """int8 (N,): 1 to 5, or 0 where the entry does not say."""
    num_properties: np.ndarray
    """int8 (N,): 1 to 4."""
    accession: Callable[[int], str]
    """Accession by place in the columns."""
    entry: Callable[[int], Entry | BadEntry]
    """Entry by place in the columns."""
    bad: Sequence[BadEntry]
    """What of the same part of the file could not be used for its structure; it is not in the columns."""


def batch_of(entries: Iterable[Entry | BadEntry]) -> EntryBatch:
    """The batch of entries that a reader gave."""
    good: list[Entry] = []
    bad: list[BadEntry] = []
    for entry in entries:
        if isinstance(entry, BadEntry):
            bad.append(entry)
        else:
            good.append(entry)
    return EntryBatch(
        **columns([(entry.reviewed, entry.existence, entry.num_properties) for entry in good]),
        accession=lambda i: good[i].accession,
        entry=good.__getitem__,
        bad=bad,
    )


def columns(rows: Iterable[tuple[bool | None, int | None, int]]) -> dict[str, np.ndarray]:
    """The columns of a batch, of (reviewed, existence, number of properties) as an entry says them."""
    codes = [(-1 if reviewed is None else reviewed, existence or 0, number) for reviewed, existence, number in rows]
    named = np.array(codes, np.int8).reshape(-1, 3).T
    return {"reviewed": named[0], "existence": named[1], "num_properties": named[2]}


def batches_of(entries: Iterator[Entry | BadEntry]) -> Iterator[EntryBatch]:
    """The batches of all entries that a reader gives."""
    while some := list(islice(entries, BATCH_ENTRIES)):
        yield batch_of(some)
