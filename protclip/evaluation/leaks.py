"""How many proteins of a test split a model has been trained on, or on relatives of.

A test protein is *identical* to a training protein if the sequences are equal. It is *similar* to one if their
identity, estimated by k-mers, is at least a half: where a share p of the residues agrees, about p^k of a protein's
k-mers are in the other one. Nothing is aligned, so that a million training proteins take minutes, and memory is that of
the test proteins.

Shapes: T test proteins, U of them that no relative is known of yet, S training proteins of a block.
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
"""Training proteins that are compared at once, at most; the first ones alone, since they may be relatives of all."""
_MAX_SHARED = 1 << 23
"""k-mers in common that are counted at once."""


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
    identical_T = np.zeros(len(test), dtype=bool)
    similar_T = np.zeros(len(test), dtype=bool)
    index = _Index.of(test, ~similar_T)
    for block in _blocks(train):
        for sequence in block:
            identical_T[places.get(sequence, [])] = True
        similar_T[index.similar([_distinct_kmers(sequence) for sequence in block])] = True
        if similar_T[index.place_U].sum() > len(index.place_U) // 2:  # what is found need not be looked for
            index = _Index.of(test, ~similar_T)
    return Leaks(identical_T=identical_T, similar_T=similar_T | identical_T)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Index:
    """The k-mers of U test proteins that no relative is known of."""

    place_U: np.ndarray
    """Among all test proteins."""
    needed_U: np.ndarray
    """k-mers that a relative shares at least."""
    number: np.ndarray
    """All k-mers, sorted; those of several proteins as often."""
    owner: np.ndarray
    """Which of the U has each."""

    @classmethod
    def of(cls, test: Sequence[str], wanted_T: np.ndarray) -> _Index:
        place_U = np.flatnonzero(wanted_T)
        kmers = [_distinct_kmers(test[place]) for place in place_U.tolist()]
        num_kmers_U = np.array([len(some) for some in kmers], dtype=np.int64)
        number = np.concatenate([np.empty(0, np.int64), *kmers])
        order = np.argsort(number, kind="stable")
        return cls(
            place_U=place_U,
            needed_U=np.maximum(MIN_SHARED, np.ceil(num_kmers_U * MIN_IDENTITY**KMER)),
            number=number[order],
            owner=np.repeat(np.arange(len(place_U)), num_kmers_U)[order],
        )

    def similar(self, kmers: Sequence[np.ndarray]) -> np.ndarray:
        """Places of the test proteins that one of these, given by their distinct k-mers, is a relative of."""
        asked = np.concatenate(kmers)
        first, last = (np.searchsorted(self.number, asked, side=side) for side in ("left", "right"))
        counts = last - first
        if counts.sum() > _MAX_SHARED and len(kmers) > 1:
            half = len(kmers) // 2
            return np.concatenate([self.similar(kmers[:half]), self.similar(kmers[half:])])
        asker = np.repeat(np.arange(len(kmers)), [len(some) for some in kmers])
        # Of each k-mer that was found, all places in the sorted list.
        starts = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        cells = np.repeat(asker, counts) * len(self.place_U) + self.owner[starts + np.arange(counts.sum())]
        shared_SU = np.bincount(cells, minlength=len(kmers) * len(self.place_U)).reshape(len(kmers), -1)
        found: np.ndarray = self.place_U[(shared_SU >= self.needed_U).any(axis=0)]
        return found


def _blocks(sequences: Iterable[str]) -> Iterator[list[str]]:
    rest, size = iter(sequences), 1
    while block := list(islice(rest, size)):
        yield block
        size = min(2 * size, _BLOCK)


def _distinct_kmers(sequence: str) -> np.ndarray:
    """Each k-mer as a number, once."""
    letters = np.frombuffer(sequence.encode(), dtype=np.uint8).astype(np.int64)
    if len(letters) < KMER:
        return np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(letters, KMER)
    return np.unique(windows @ (1 << (7 * np.arange(KMER))))
