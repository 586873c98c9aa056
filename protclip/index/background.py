"""What the best answers of random questions score: the background against which a score is read.

A cosine alone says little, since of a weak model all are near 1. A percentile says how rarely a random question finds
anything as near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from protclip.errors import DataError

MIN_QUESTIONS = 20
"""Of fewer random questions no background is made: one of them would be more than 5 %."""
DIGITS = 6
"""To which scores are rounded: a graph's float32 scores and those of exact search differ behind them."""

Background = Mapping[str, Sequence[float]]
"""Kind of question, ``protein`` or ``text`` → the best exact cosine of each random question, upwards."""


def best_scores(exact_QK: NDArray[np.float32]) -> list[float] | None:
    """The background of one kind of question.

    Args:
        exact_QK: exact cosines of the answers to each random question, downwards, -inf where there are no more.

    Returns:
        the best of each, upwards; None where fewer than MIN_QUESTIONS have an answer.
    """
    best_Q = exact_QK[:, 0]
    best_Q = best_Q[np.isfinite(best_Q)]
    return np.sort(_rounded(best_Q)).tolist() if len(best_Q) >= MIN_QUESTIONS else None


def percentiles(scores: NDArray[np.float32], best: Sequence[float]) -> NDArray[np.float64]:
    """The share of random questions, in %, whose best answer scores lower; of those that score the same, half.

    So the best answers of random questions have percentiles that are spread evenly from 0 to 100.

    Args:
        scores: cosines, of any shape.
        best: the background of the questions' kind.

    Returns:
        from 0 to 100, of the shape of the scores.
    """
    best_Q, rounded = np.asarray(best, np.float64), _rounded(scores)
    below, not_above = (np.searchsorted(best_Q, rounded, side=side) for side in ("left", "right"))
    shares: NDArray[np.float64] = 50.0 * (below + not_above) / len(best_Q)
    return shares


def check_background(background: Background, where: str) -> None:
    """Refuse what no build records.

    Raises:
        DataError: naming the kind and what is wrong.
    """
    for kind, best in background.items():
        best_Q = np.asarray(best, np.float64)
        wrong = None
        if kind not in ("protein", "text"):
            wrong = "is of no kind of question; protein and text are"
        elif len(best_Q) < MIN_QUESTIONS:
            wrong = f"has {len(best_Q)} scores; {MIN_QUESTIONS} are needed at least"
        elif not (np.abs(best_Q) <= 1).all():  # nor NaN
            wrong = "holds a score that is not from -1 to 1"
        elif (np.diff(best_Q) < 0).any():
            wrong = "is not sorted upwards"
        if wrong:
            raise DataError(f"{where}: background.{kind:.40} {wrong}. Restore the file, or make the index again.")


def _rounded(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    # The cosine of equal float32 vectors may be a little more than 1.
    return np.clip(np.round(np.asarray(scores, np.float64), DIGITS), -1, 1)
