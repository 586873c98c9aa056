"""Which items go into one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[np.ndarray]:
    """Indices of batches, longest items first, such that items × longest item stays within the budget.

    Without padding fewer tokens are in it, but items × longest² bounds what attention costs too. An item longer than
    the budget is a batch of its own.

    Args:
        lengths: tokens of each item.
        max_tokens: tokens that a batch may hold, each item counted as long as the longest.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size
