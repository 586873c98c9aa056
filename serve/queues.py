"""What replicas have in common that compute what waits (``serve.batching``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from protclip.errors import RequestError
from protclip.index.filters import Filter
from serve import context

MAX_SCANS, SCANS_AT_ONCE = 1_000, 32
"""Scans that may wait, and those that are done together: each question of a request is one, and its filter more."""
LETTERS_OF_SCAN = 10
"""So many letters of a filter, at least a condition, cost as much as a scan."""
SWITCH_S = 0.0005
"""How long a thread keeps Python's lock from another (decision 076)."""

One = TypeVar("One")
Other = TypeVar("Other")


def scan_cost(num_questions: int, where: Filter | str | None) -> int:
    """What a request costs whose rows are gone through."""
    letters = 0 if where is None else len(where.text if isinstance(where, Filter) else where)
    return num_questions + letters // LETTERS_OF_SCAN


def each_alone_on_error(
    function: Callable[[Sequence[One]], Sequence[Other]], items: Sequence[One]
) -> list[Other | Exception]:
    """The function of all items at once; where one of them is at fault, of each, so that it fails alone."""
    try:
        return list(function(items)) if items else []
    except RequestError as error:
        return [error] if len(items) == 1 else [one for item in items for one in each_alone_on_error(function, [item])]


def deadline() -> float | None:
    """Of the request that is being answered."""
    request = context.current.get()
    return None if request is None else request.deadline
