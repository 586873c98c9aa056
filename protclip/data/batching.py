"""Which items go into one forward pass, and what happens where a pass does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from protclip.errors import DataError

SQUARES_PER_TOKEN = 1024
"""Attention of a batch is bounded as if each token of its budget stood in a sequence of so many."""

Refuse = Callable[[int, str], None]
"""Takes the number of an item that cannot be computed, and why."""


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[np.ndarray]:
    """Indices of batches, longest items first, bounded in the cost of both matrix products and attention.

    The tokens of a batch sum to ``max_tokens`` at most, their squared lengths to ``max_tokens`` × SQUARES_PER_TOKEN. An
    item beyond either is a batch of its own.

    Args:
        lengths: tokens of each item.
        max_tokens: tokens that a batch may hold.
    """
    if len(lengths) == 1:  # a question to a server, which waits for it
        yield np.zeros(1, np.int64)
        return
    length_N = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-length_N, kind="stable")
    tokens_N1, squares_N1 = (np.concatenate([[0], np.cumsum(length_N[order] ** power)]) for power in (1, 2))
    start = 0
    while start < len(order):
        ends = (
            np.searchsorted(tokens_N1, tokens_N1[start] + max_tokens, "right"),
            np.searchsorted(squares_N1, squares_N1[start] + max_tokens * SQUARES_PER_TOKEN, "right"),
        )
        end = max(start + 1, int(min(ends)) - 1)
        yield order[start:end]
        start = end


def run_batches(
    lengths: Sequence[int],
    max_tokens: int,
    compute: Callable[[np.ndarray], None],
    *,
    refuse: Refuse | None = None,
    run: Callable[[Callable[[np.ndarray], None], Iterator[np.ndarray]], Iterable[None]] = map,
) -> None:
    """Call a function on the indices of each batch; a batch that does not fit into memory is halved and tried again.

    Args:
        lengths: as for ``token_budget_batches``.
        max_tokens: likewise.
        compute: what is done with a batch.
        refuse: called with a single item that does not fit.
        run: calls a function on each batch, as ``map`` does, or several at once.

    Raises:
        DataError: for such an item where ``refuse`` is None.
    """

    def whole(batch: np.ndarray) -> None:
        waiting = [batch]
        while waiting:
            batch = waiting.pop()
            if (problem := _out_of_memory(compute, batch)) is None:
                continue
            if len(batch) > 1:
                middle = len(batch) // 2
                waiting += [batch[middle:], batch[:middle]]
                continue
            message = f"{lengths[batch[0]]:,} tokens do not fit into memory ({problem})"
            if refuse is None:
                raise DataError(f"item {batch[0] + 1} of {len(lengths)}: {message}; use a device with more, or cut it.")
            refuse(int(batch[0]), message)

    for _ in run(whole, token_budget_batches(lengths, max_tokens)):
        pass


def _out_of_memory(compute: Callable[[np.ndarray], None], batch: np.ndarray) -> str | None:
    """What torch says where a batch does not fit; None where it was computed."""
    import torch

    try:
        compute(batch)
        return None
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        # On a CPU torch has no class for it, only this message.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        problem = str(error).partition("\n")[0] or type(error).__name__
    # Outside of the except clause: the traceback held the tensors of the batch.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return problem
