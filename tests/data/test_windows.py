"""Windows over long proteins."""

from __future__ import annotations

import numpy as np
import pytest

from protclip.data.windows import window_starts, window_weights

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [1, 2, 7, 62])
def test_windows_cover_all_and_overlap_by_half(size: int) -> None:
    for length in [*range(1, 4 * size + 3), 1000]:
        starts = window_starts(length, size)
        if length <= size:
            assert starts == [0]
            continue
        assert starts[0] == 0
        assert starts[-1] + size == length
        steps = np.diff(starts)
        assert steps.min() >= 1
        assert steps.max() <= max(1, size - size // 2)


def test_weights_are_those_of_a_mean_over_residues() -> None:
    # Residues 0, 1 are in the first window alone, 2, 3 in both, 4, 5 in the second alone.
    assert window_weights([0, 2], 4, 6).tolist() == [0.5, 0.5]
    # Of 5: 0 | 1 2 3 shared | 4 ; and three windows of 2 over 4: 0 | 1 shared | 2 shared | 3.
    assert window_weights([0, 1, 2], 2, 4) == pytest.approx([1.5 / 4, 1 / 4, 1.5 / 4])
    weights = window_weights(window_starts(1000, 62), 62, 1000)
    assert weights.sum() == pytest.approx(1.0)
