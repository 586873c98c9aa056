"""The sampling's rates over a million candidates."""

from __future__ import annotations

import pytest
from protanno.test_sampling import check_rates


@pytest.mark.prove
def test_a_million_candidates_are_kept_as_often_as_the_formula_says() -> None:
    check_rates(1_000_020)
