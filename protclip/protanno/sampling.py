"""Property-driven sampling of TrEMBL (Zhou et al. 2025, METHOD "Data"): p = R^a / C^b for the well-described entries.

R is the property coverage, the share of the four properties that are present, the name always counted; C is UniProt's
protein existence, 1 (evidence at protein level) to 5 (uncertain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protclip.hashing import uniform
from protclip.protanno.shards import PROPERTIES
from protclip.uniprot.entry import Entry

Mode = Literal["property", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Which unreviewed entries are kept; reviewed ones, and those that do not say, always are."""

    mode: Mode = "property"
    """``property`` draws by p; ``none`` keeps every entry."""
    coverage_exponent: float = 0.5
    """The paper's a."""
    existence_exponent: float = 3.0
    """The paper's b."""
    min_coverage: float = 0.75
    """Entries with a smaller R are not candidates."""
    max_existence: int = 3
    """Entries with a larger C are not candidates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """What the sampling decides on one entry."""

    probability: float
    """With which the entry is kept; 0 for one that is no candidate."""
    refusal: str | None
    """Why it is not kept, as a short fixed phrase; None where it is."""


def coverage(entry: Entry) -> float:
    """R: 1/4, 2/4, 3/4 or 1."""
    return num_properties(entry) / len(PROPERTIES)


def num_properties(entry: Entry) -> int:
    """Properties present, 1 to 4; the name counts even where there is none."""
    comments = (entry.function, entry.subcellular_location, entry.similarity)
    return 1 + sum(text is not None for text in comments)


def sampling_probability(entry: Entry, config: SamplingConfig) -> float:
    """The probability with which the entry is kept."""
    if config.mode == "none" or entry.reviewed is not False:
        return 1.0
    if _not_a_candidate(entry, config):
        return 0.0
    assert entry.existence is not None
    return float(coverage(entry) ** config.coverage_exponent / entry.existence**config.existence_exponent)


def draw(entry: Entry, config: SamplingConfig, seed: int) -> Draw:
    """Decide on one entry, by (seed, accession) alone."""
    probability = sampling_probability(entry, config)
    if probability <= 0.0:
        return Draw(probability=0.0, refusal=_not_a_candidate(entry, config))
    kept = probability >= 1.0 or uniform(seed, "sampling", entry.accession) < probability
    return Draw(probability=probability, refusal=None if kept else "not drawn")


def _not_a_candidate(entry: Entry, config: SamplingConfig) -> str | None:
    if coverage(entry) < config.min_coverage:
        return "below the coverage"
    if entry.existence is None:
        return "protein existence unknown"
    if entry.existence > config.max_existence:
        return "above the existence level"
    return None
