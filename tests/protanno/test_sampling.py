"""Biotext and property-driven sampling."""

from __future__ import annotations

import pytest

from protclip.protanno.biotext import biotext
from protclip.protanno.sampling import (
    Group,
    SamplingConfig,
    expectation,
    is_drawn,
    sampling_probability,
    why_no_candidate,
)
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit

PAPER = SamplingConfig()
COMMENTS = ("function", "subcellular_location", "similarity")


def entry(accession: str, *, properties: int, existence: int | None, reviewed: bool | None = False) -> Entry:
    comments = dict.fromkeys(COMMENTS[: properties - 1], "TEXT: x.")
    return Entry(accession=accession, sequence="M", name="n", existence=existence, reviewed=reviewed, **comments)


def is_kept(candidate: Entry, config: SamplingConfig, seed: int) -> bool:
    return is_drawn(candidate.accession, sampling_probability(candidate, config), seed)


def test_the_biotext_is_the_papers() -> None:
    assert biotext("Cutinase (EC 3.1.1.74)", "FUNCTION: F.", None, "SIMILARITY: S.") == (
        "PROTEIN NAME: Cutinase (EC 3.1.1.74). FUNCTION: F. SIMILARITY: S."
    )
    assert biotext(None, None, "SUBCELLULAR LOCATION: L.", None) == "SUBCELLULAR LOCATION: L."
    assert biotext(None, None, None, None) == ""


@pytest.mark.parametrize(
    ("properties", "existence", "probability"),
    [
        (4, 1, 1.0),
        (4, 2, 1 / 8),
        (4, 3, 1 / 27),
        (3, 1, 0.75**0.5),
        (3, 3, 0.0320750149548979),
        (2, 1, 0.0),
        (4, 4, 0.0),
        (3, None, 0.0),
    ],
)
def test_the_probability_is_the_papers(properties: int, existence: int | None, probability: float) -> None:
    assert sampling_probability(entry("A", properties=properties, existence=existence), PAPER) == pytest.approx(
        probability, rel=1e-12
    )


@pytest.mark.parametrize("reviewed", [True, None])
def test_reviewed_entries_and_those_that_do_not_say_are_kept_whole(reviewed: bool | None) -> None:
    poor = entry("A", properties=1, existence=5, reviewed=reviewed)
    assert sampling_probability(poor, PAPER) == 1.0
    assert all(is_drawn(f"A{i}", 1.0, seed=0) for i in range(100))


def test_without_sampling_everything_is_kept() -> None:
    assert is_kept(entry("A", properties=1, existence=5), SamplingConfig(dataset="all"), seed=0)


def test_what_is_no_candidate_says_why() -> None:
    reasons = [
        why_no_candidate(entry("A", properties=properties, existence=existence), PAPER)
        for properties, existence in ((2, 1), (4, 4), (4, None), (3, 3))
    ]
    assert reasons == ["below the coverage", "above the existence level", "protein existence unknown", None]


def draw_by_cell(number: int) -> dict[Group, tuple[int, float]]:
    """How many of so many candidates are kept, and p, over the six cells of the paper's rule."""
    groups = [Group(reviewed=False, existence=c, num_properties=r) for r in (3, 4) for c in (1, 2, 3)]
    chances = [sampling_probability(group, PAPER) for group in groups]
    kept = [0] * len(groups)
    for i in range(number):
        kept[i % len(groups)] += is_drawn(f"A{i}", chances[i % len(groups)], 3)
    return dict(zip(groups, zip(kept, chances, strict=True), strict=True))


def check_rates(number: int) -> None:
    cells = draw_by_cell(number)
    for group, (kept, chance) in cells.items():
        share = number // len(cells)
        assert group.existence is not None
        assert chance == (group.num_properties / 4) ** 0.5 / group.existence**3
        assert abs(kept - share * chance) <= 4 * (share * chance * (1 - chance)) ** 0.5
    expected, deviation = expectation(dict.fromkeys(cells, number // len(cells)), PAPER)
    assert abs(sum(kept for kept, _ in cells.values()) - expected) <= 4 * deviation


def test_candidates_are_kept_as_often_as_the_formula_says() -> None:
    check_rates(120_000)


def test_the_expectation_is_the_sum_of_p() -> None:
    candidates = {
        Group(reviewed=False, existence=1, num_properties=4): 7,
        Group(reviewed=False, existence=2, num_properties=4): 800,
    }
    assert expectation(candidates, PAPER) == (107, pytest.approx((800 / 8 * 7 / 8) ** 0.5))
    assert expectation({}, PAPER) == (0, 0)


def test_dataset_s_keeps_no_unreviewed_entry() -> None:
    config = SamplingConfig(dataset="S")
    assert sampling_probability(entry("A", properties=4, existence=1), config) == 0
    assert why_no_candidate(entry("A", properties=4, existence=1), config) == "not reviewed"
    assert sampling_probability(entry("A", properties=1, existence=5, reviewed=True), config) == 1
    assert sampling_probability(entry("A", properties=1, existence=5, reviewed=None), config) == 1


def test_the_draw_is_of_seed_and_accession_alone() -> None:
    # The same accession with other text of the same coverage is drawn alike; another seed draws otherwise.
    first = [is_kept(entry(f"A{i}", properties=4, existence=2), PAPER, seed=1) for i in range(500)]
    again = [is_kept(entry(f"A{i}", properties=4, existence=2), PAPER, seed=1) for i in reversed(range(500))]
    other = [is_kept(entry(f"A{i}", properties=4, existence=2), PAPER, seed=2) for i in range(500)]
    assert first == again[::-1]
    assert first != other
