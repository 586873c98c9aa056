"""Which entries a ProtAnno has, and the property-driven sampling of TrEMBL for one: p = R^a / C^b (Zhou et al. 2025).

R is the property coverage, the share of the four properties that are present, the name always counted; C is UniProt's
protein existence, 1 (evidence at protein level) to 5 (uncertain).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np

from protclip.errors import ConfigError
from protclip.fields import check_number, check_types
from protclip.hashing import uniform
from protclip.protanno.shards import PROPERTIES
from protclip.uniprot.batch import EntryBatch
from protclip.uniprot.entry import Entry

Dataset = Literal["S", "D", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Which unreviewed entries are kept; reviewed ones, and those that do not say, always are."""

    dataset: Dataset = "D"
    """S: reviewed entries (ProtAnno-S). D: also unreviewed entries, each kept with probability R^a / C^b, where R is
    the share of the four properties that it has and C its existence level (ProtAnno-D). all: every entry. Entries that
    do not say whether they are reviewed are kept."""
    coverage_exponent: float = 0.5
    """The exponent a of dataset D."""
    existence_exponent: float = 3.0
    """The exponent b of dataset D."""
    min_coverage: float = 0.75
    """Smallest R in dataset D."""
    max_existence: int = 3
    """Largest C in dataset D."""
    draw: Literal["once", "each-epoch"] = "once"
    """For dataset D. once: draw the entries now. each-epoch: keep all candidates, and let each epoch of a training draw
    its own; validation and test pairs are drawn once."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("coverage_exponent", self.coverage_exponent, at_least=0)
        check_number("existence_exponent", self.existence_exponent, at_least=0)
        check_number("min_coverage", self.min_coverage, at_least=0, at_most=1)
        check_number("max_existence", self.max_existence, at_least=1, at_most=5)
        for how in fields(self)[1:]:
            if self.dataset != "D" and getattr(self, how.name) != how.default:
                raise ConfigError(f"{how.name} is of dataset D, not of {self.dataset}; leave one out.")


class Group(NamedTuple):
    """What the sampling looks at: entries that agree in it have one probability."""

    reviewed: bool | None
    existence: int | None
    num_properties: int


GROUPS = tuple(
    Group(reviewed, existence or None, number)
    for reviewed, existence, number in itertools.product((None, False, True), range(6), range(1, len(PROPERTIES) + 1))
)
"""All there are."""


def group_numbers(batch: EntryBatch) -> np.ndarray:
    """The number in GROUPS of each entry's group, int (N,)."""
    reviewed, existence = batch.reviewed.astype(np.intp) + 1, batch.existence.astype(np.intp)
    numbers: np.ndarray = (reviewed * 6 + existence) * len(PROPERTIES) + batch.num_properties - 1
    return numbers


def coverage(entry: Entry | Group) -> float:
    """R: 1/4, 2/4, 3/4 or 1."""
    return entry.num_properties / len(PROPERTIES)


def sampling_probability(entry: Entry | Group, config: SamplingConfig) -> float:
    """The probability with which the entry is kept."""
    if config.dataset == "all" or entry.reviewed is not False:
        return 1.0
    if why_no_candidate(entry, config):
        return 0.0
    assert entry.existence is not None
    return min(1.0, float(coverage(entry) ** config.coverage_exponent / entry.existence**config.existence_exponent))


def why_no_candidate(entry: Entry | Group, config: SamplingConfig) -> str | None:
    """Why an unreviewed entry has probability 0, as a short fixed phrase; None for a candidate."""
    if config.dataset == "S":
        return "not reviewed"
    if coverage(entry) < config.min_coverage:
        return "below the coverage"
    if entry.existence is None:
        return "protein existence unknown"
    if entry.existence > config.max_existence:
        return "above the existence level"
    return None


def expectation(candidates: Mapping[Group, int], config: SamplingConfig) -> tuple[float, float]:
    """How many candidates are expected to be kept, and the standard deviation of that number.

    Each is drawn by itself, so the mean is the sum of p and the variance that of p(1 - p).
    """
    mean = variance = 0.0
    for group, number in sorted(candidates.items()):
        probability = sampling_probability(group, config)
        mean += number * probability
        variance += number * probability * (1 - probability)
    return mean, math.sqrt(variance)


def is_drawn(accession: str, probability: float, seed: int) -> bool:
    """Whether the entry is kept, by (seed, accession) alone."""
    return probability >= 1.0 or uniform(seed, "sampling", accession) < probability
