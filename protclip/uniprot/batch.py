"""Batch: entries that stand together in a file, as the columns that the sampling decides on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from protclip.uniprot.entry import BadEntry, Entry

BATCH_ENTRIES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some entries of a file in its order; where a format allows it, they are made only when asked for.

    Only what is asked for is checked to the end: an entry that stands in the columns is sound in its structure, and may
    still come out bad for its sequence or another field that the columns do not need.
    """

    reviewed: Sequence[bool | None]
    existence: Sequence[int | None]
    num_properties: Sequence[int]
    accession: Callable[[int], str]
    """Accession by place in the columns."""
    entry: Callable[[int], Entry | BadEntry]
    """Entry by place in the columns."""
    bad: Sequence[BadEntry]
    """What of the same part of the file could not be used for its structure; it is not in the columns."""


def batch_of(entries: Iterable[Entry | BadEntry]) -> Batch:
    """The batch of entries that a reader gave."""
    good: list[Entry] = []
    bad: list[BadEntry] = []
    for entry in entries:
        if isinstance(entry, BadEntry):
            bad.append(entry)
        else:
            good.append(entry)
    return Batch(
        reviewed=[entry.reviewed for entry in good],
        existence=[entry.existence for entry in good],
        num_properties=[entry.num_properties for entry in good],
        accession=lambda i: good[i].accession,
        entry=good.__getitem__,
        bad=bad,
    )


def batches_of(entries: Iterator[Entry | BadEntry]) -> Iterator[Batch]:
    """The batches of all entries that a reader gives."""
    while some := list(islice(entries, BATCH_ENTRIES)):
        yield batch_of(some)
