"""Near relatives among sequences: MinHash signatures of reduced-alphabet k-mers, and the clusters that they make.

Two proteins of 50 % identity share few exact k-mers, but many more once residues that evolution exchanges freely count
as one letter. The signature of a sequence holds, for each of H hash functions, the smallest hash over its k-mers; two
sequences agree in a slot with the Jaccard similarity of their sets of k-mers as its probability (Broder 1997).

Each slot is one band: those who agree in it are candidates, and a pair is joined where enough slots agree. Clusters are
the connected components. Everything is a function of the set of sequences alone.

Memory: 256 bytes for the signature of a sequence and about 80 for the clustering, so 3.5 GB for 10 million.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protclip.hashing import GOLDEN
from protclip.protanno.components import Components

NUM_HASHES = 64
"""H: slots of a signature, and bands."""
KMER = 6
"""Residues of a k-mer."""
MIN_AGREEING = (20, 10, 5)
"""Slots of the signatures in which two sequences must agree to be joined, from near relatives to far ones."""
MAX_SHARE = 0.01
"""Of all sequences, in a cluster that far relatives are joined to."""
MIN_LARGEST = 1000
"""Sequences that such a cluster may have in any case."""
GROUPS = ("AST", "C", "DN", "EQ", "FY", "G", "H", "IV", "KR", "LM", "P", "W")
"""Residues that count as one."""

_BLOCK_RESIDUES = 1 << 18
_CHUNK_PAIRS = 1 << 18
_OTHER = len(GROUPS)


def _letters() -> np.ndarray:
    table = np.full(256, _OTHER, dtype=np.uint64)  # ambiguous letters are one more group
    for number, group in enumerate(GROUPS):
        table[list(group.encode())] = number
    return table


_LETTERS = _letters()
_random = np.random.Generator(np.random.Philox(20)).integers(0, 1 << 64, (2, NUM_HASHES), dtype=np.uint64)
_MULTIPLIERS, _OFFSETS = _random[0] | np.uint64(1), _random[1]


def signatures(sequences: Sequence[str]) -> np.ndarray:
    """The signature of each sequence, [number, NUM_HASHES] of uint32; a sequence shorter than a k-mer is padded."""
    result = np.empty((len(sequences), NUM_HASHES), dtype=np.uint32)
    start = 0
    while start < len(sequences):
        stop, total = start, 0
        while stop < len(sequences) and (stop == start or total + len(sequences[stop]) <= _BLOCK_RESIDUES):
            total += len(sequences[stop])
            stop += 1
        result[start:stop] = _block_signatures(sequences[start:stop])
        start = stop
    return result


def _block_signatures(sequences: Sequence[str]) -> np.ndarray:
    padded = [sequence.encode().ljust(KMER, b"X") for sequence in sequences]
    letters = _LETTERS[np.frombuffer(b"".join(padded), dtype=np.uint8)]
    lengths = np.array([len(sequence) for sequence in padded])
    kmers = np.zeros(len(letters) - KMER + 1, dtype=np.uint64)
    for i in range(KMER):
        kmers = kmers * np.uint64(_OTHER + 1) + letters[i : len(kmers) + i]
    # Windows that reach into the next sequence do not count.
    ends = np.cumsum(lengths)
    inside = np.ones(len(kmers), dtype=bool)
    for i in range(1, KMER):
        inside[ends[:-1] - i] = False
    kmers = kmers[inside]
    starts = np.concatenate([[0], np.cumsum(lengths - KMER + 1)[:-1]])
    kmers = (kmers + np.uint64(1)) * GOLDEN
    kmers ^= kmers >> np.uint64(29)
    result = np.empty((len(padded), NUM_HASHES), dtype=np.uint32)
    for slot in range(NUM_HASHES):
        hashes = kmers * _MULTIPLIERS[slot]
        hashes += _OFFSETS[slot]
        hashes >>= np.uint64(32)
        result[:, slot] = np.minimum.reduceat(hashes, starts)
    return result


def clusters(signatures_NH: np.ndarray) -> np.ndarray:
    """The cluster of each sequence, named by its first member.

    In each slot the sequences of one value are a bucket; each is compared with the first of its bucket and with its
    neighbour there, so that the work is linear in the number of sequences, and a k-mer that half of all proteins have
    makes no cluster of them. The nearest relatives are joined first. Where weaker relations would chain more
    than MAX_SHARE of all sequences together, they are not used.

    Args:
        signatures_NH: as ``signatures`` gives them, in an order that is a function of the set of sequences.
    """
    number = len(signatures_NH)
    largest = max(MIN_LARGEST, int(MAX_SHARE * number))
    components = Components(number)
    for min_agreeing in MIN_AGREEING:
        before = components.roots.copy()
        _join_relatives(components, signatures_NH, min_agreeing)
        if min_agreeing != MIN_AGREEING[0]:
            too_large = np.bincount(components.roots, minlength=number)[components.roots] > largest
            components.roots = np.where(too_large, before, components.roots)
    return components.roots


def _join_relatives(components: Components, signatures_NH: np.ndarray, min_agreeing: int) -> None:
    for slot in range(NUM_HASHES):
        order = np.argsort(signatures_NH[:, slot], kind="stable")
        values = signatures_NH[order, slot]
        same = values[1:] == values[:-1]
        later = np.flatnonzero(same) + 1
        heads = np.maximum.accumulate(np.where(np.append(True, ~same), np.arange(len(order)), 0))
        for partner in (heads[later], later - 1):
            for start in range(0, len(later), _CHUNK_PAIRS):
                first, second = order[later[start : start + _CHUNK_PAIRS]], order[partner[start : start + _CHUNK_PAIRS]]
                apart = components.roots[first] != components.roots[second]
                first, second = first[apart], second[apart]
                related = (signatures_NH[first] == signatures_NH[second]).sum(axis=1) >= min_agreeing
                components.join(first[related], second[related])
