"""A synthetic proteome in which each property is written by a motif whose residues are known.

Each of the four properties has ``NUM_VARIANTS`` variants. A variant has invented words and a motif of its own: random
residues of few kinds. A protein is random residues in which the motifs of its properties are planted, in any
order and at any place, some of their residues mutated, and beside them decoys: motifs that no text speaks of. Its texts
name the variants, so that nothing but a motif tells what a property is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from protclip.data.tokenize import TOKENIZED_COLUMNS
from protclip.hashing import hash64
from protclip.protanno.shards import PROPERTIES, SCHEMA

NUM_VARIANTS = 12
MOTIF_RESIDUES = 14
MOTIF_TYPES = 4
"""Kinds of residues in a motif."""
NUM_DECOYS = 12
DECOYS_PER_PROTEIN = 1
MUTATION_RATE = 0.1
ABSENT_SHARE = 0.2
"""Of each property but the name."""
MIN_RESIDUES, MAX_RESIDUES = 80, 100

_RESIDUES = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
# Shares of the residues in Swiss-Prot, rounded (https://web.expasy.org/docs/relnotes/relstat.html); conserved sites
# prefer residues that are rare elsewhere, such as C, H and W.
_BACKGROUND = np.array([83, 14, 55, 67, 39, 71, 23, 59, 58, 97, 24, 41, 47, 39, 55, 66, 54, 69, 11, 29])
_BACKGROUND_SHARE = _BACKGROUND / _BACKGROUND.sum()
_MOTIF_SHARE = (1 / _BACKGROUND) / (1 / _BACKGROUND).sum()
_SYLLABLES = [onset + vowel for onset in "bdfgklmnprstvz" for vowel in "aeiou"]
_PHRASES = (
    "{} {} {}",
    "FUNCTION: Binds {} {} {}.",
    "SUBCELLULAR LOCATION: {} {} {}.",
    "SIMILARITY: Belongs to the {} {} {} family.",
)
_WORDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class MotifProteome:
    """Pairs, and where their motifs are."""

    pairs: pa.Table
    """TOKENIZED_COLUMNS."""
    spans_NK2: np.ndarray
    """First residue and the one behind the last, of the motif of each of the four properties; -1 where absent."""


def motif_proteome(num_proteins: int, *, seed: int, first: int = 0) -> MotifProteome:
    """Proteins ``first``, ``first`` + 1 and so on of this seed's proteome; each is a function of seed and number."""
    variants = _Variants(seed)
    rows, spans = [], []
    for number in range(first, first + num_proteins):
        row, span_K2 = _protein(variants, number, np.random.default_rng([seed, 1, number]))
        rows.append(dict(zip(TOKENIZED_COLUMNS, row, strict=True)))
        spans.append(span_K2)
    schema = pa.schema([SCHEMA.field(name) for name in TOKENIZED_COLUMNS])
    return MotifProteome(pairs=pa.Table.from_pylist(rows, schema=schema), spans_NK2=np.stack(spans))


class _Variants:
    """The motif and the text of each variant of each property, and the decoys."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        num_motifs = len(PROPERTIES) * NUM_VARIANTS
        motifs = np.stack([_motif(rng) for _ in range(num_motifs + NUM_DECOYS)])
        self.motifs = motifs[:num_motifs].reshape(len(PROPERTIES), NUM_VARIANTS, MOTIF_RESIDUES)
        self.decoys = motifs[num_motifs:]
        words = rng.permutation([a + b for a in _SYLLABLES for b in _SYLLABLES])
        words = words[: len(PROPERTIES) * NUM_VARIANTS * _WORDS].reshape(len(PROPERTIES), NUM_VARIANTS, _WORDS)
        self.texts = [
            [phrase.format(*variant) for variant in words_VW] for phrase, words_VW in zip(_PHRASES, words, strict=True)
        ]


def _motif(rng: np.random.Generator) -> np.ndarray:
    kinds = rng.choice(_RESIDUES, size=MOTIF_TYPES, replace=False, p=_MOTIF_SHARE)
    return rng.choice(kinds, size=MOTIF_RESIDUES)


def _protein(
    variants: _Variants, number: int, rng: np.random.Generator
) -> tuple[tuple[str | int | None, ...], np.ndarray]:
    present = rng.random(len(PROPERTIES)) >= [0.0, *[ABSENT_SHARE] * (len(PROPERTIES) - 1)]
    chosen = rng.integers(NUM_VARIANTS, size=len(PROPERTIES))
    texts = [variants.texts[k][chosen[k]] if present[k] else None for k in range(len(PROPERTIES))]
    decoys = rng.choice(NUM_DECOYS, size=DECOYS_PER_PROTEIN, replace=False)
    motifs = [variants.motifs[k, chosen[k]] for k in np.flatnonzero(present)] + [variants.decoys[i] for i in decoys]

    residues = rng.choice(_RESIDUES, size=rng.integers(MIN_RESIDUES, MAX_RESIDUES + 1), p=_BACKGROUND_SHARE)
    order = rng.permutation(len(motifs))
    # The residues outside are dealt to the gaps, so that every placement without overlap can come.
    spare = len(residues) - len(motifs) * MOTIF_RESIDUES
    starts = np.empty(len(motifs), dtype=np.int64)
    starts[order] = np.sort(rng.integers(spare + 1, size=len(motifs))) + MOTIF_RESIDUES * np.arange(len(motifs))
    for start, motif in zip(starts, motifs, strict=True):
        mutated = rng.random(MOTIF_RESIDUES) < MUTATION_RATE
        residues[start : start + MOTIF_RESIDUES] = np.where(
            mutated, rng.choice(_RESIDUES, MOTIF_RESIDUES, p=_BACKGROUND_SHARE), motif
        )
    assert all(b - a >= MOTIF_RESIDUES for a, b in pairwise(np.sort(starts)))

    span_K2 = np.full((len(PROPERTIES), 2), -1)
    span_K2[present, 0] = starts[: present.sum()]
    span_K2[present, 1] = starts[: present.sum()] + MOTIF_RESIDUES
    sequence = "".join(residues)
    return (f"M{number:06d}", sequence, *texts, hash64(sequence)), span_K2
