"""How many proteins of a test split a model has been trained on, or on relatives of.

A test protein is *identical* to a training protein if the sequences are equal. It is *similar* to one if their
identity, estimated by k-mers, is at least a half: where a share p of the residues agrees, about p^k of a protein's
k-mers are in the other one. Nothing is aligned, so that a million training proteins take minutes, and memory is that of
the test proteins.

Shapes: T test proteins, S training proteins of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

KMER = 5
MIN_IDENTITY = 0.5
MIN_SHARED = 8
"""Of k-mers that two proteins must share in any case: among many training proteins a few are shared by chance."""
_BLOCK = 256
"""Training proteins that are compared at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaks:
    """Of T test proteins."""

    identical_T: np.ndarray
    """bool: the same sequence was trained on."""
    similar_T: np.ndarray
    """bool: so was one of at least MIN_IDENTITY; the identical ones are similar too."""

    def counts(self) -> dict[str, int]:
        """For a report."""
        return {
            "proteins": len(self.identical_T),
            "identical": int(self.identical_T.sum()),
            "similar": int(self.similar_T.sum()),
        }


def find_leaks(test: Sequence[str], train: Iterable[str]) -> Leaks:
    """Which test proteins were trained on, or relatives of theirs.

    Args:
        test: sequences in one-letter code.
        train: likewise; read once.
    """
    places: dict[str, list[int]] = {}
    for place, sequence in enumerate(test):
        places.setdefault(sequence, []).append(place)
    kmers = [_distinct_kmers(sequence) for sequence in test]
    num_kmers_T = np.array([len(some) for some in kmers], dtype=np.int64)
    needed_T = np.maximum(MIN_SHARED, np.ceil(num_kmers_T * MIN_IDENTITY**KMER))
    owner = np.repeat(np.arange(len(test)), num_kmers_T)
    number = np.concatenate([np.empty(0, np.int64), *kmers])
    order = np.argsort(number, kind="stable")
    number, owner = number[order], owner[order]
    identical_T = np.zeros(len(test), dtype=bool)
    similar_T = np.zeros(len(test), dtype=bool)
    for block in _blocks(train):
        for sequence in block:
            identical_T[places.get(sequence, [])] = True
        shared_ST = _num_shared([_distinct_kmers(sequence) for sequence in block], number, owner, len(test))
        similar_T |= (shared_ST >= needed_T).any(axis=0)
    return Leaks(identical_T=identical_T, similar_T=similar_T | identical_T)


def _blocks(sequences: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(sequences)
    while block := list(islice(rest, _BLOCK)):
        yield block


def _distinct_kmers(sequence: str) -> np.ndarray:
    """Each k-mer as a number, once."""
    letters = np.frombuffer(sequence.encode(), dtype=np.uint8).astype(np.int64)
    if len(letters) < KMER:
        return np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(letters, KMER)
    return np.unique(windows @ (1 << (7 * np.arange(KMER))))


def _num_shared(kmers: Sequence[np.ndarray], number: np.ndarray, owner: np.ndarray, num_test: int) -> np.ndarray:
    """k-mers that each of these proteins has in common with each test protein, (S, T).

    Args:
        kmers: of these proteins, distinct.
        number: the k-mers of all test proteins, sorted.
        owner: which test protein has each.
        num_test: T.
    """
    asked = np.concatenate(kmers)
    asker = np.repeat(np.arange(len(kmers)), [len(some) for some in kmers])
    first, last = (np.searchsorted(number, asked, side=side) for side in ("left", "right"))
    counts = last - first
    # Of each k-mer that was found, all places in the sorted list.
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    found = starts + np.arange(counts.sum())
    cells = np.repeat(asker, counts) * num_test + owner[found]
    shared: np.ndarray = np.bincount(cells, minlength=len(kmers) * num_test).reshape(len(kmers), num_test)
    return shared
