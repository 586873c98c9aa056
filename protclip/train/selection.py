"""Which epoch of a run is the best one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from protclip.config import Selection

Epoch = TypeVar("Epoch")


def cost(selection: Selection, metrics: Mapping[str, Any]) -> float:
    """What an epoch is selected by: the less, the better. NaN where it was not measured.

    Args:
        selection: names the measure, as ``flat`` does.
        metrics: of an epoch; nested ones go by both names, such as text_to_protein_recall_at_10.
    """
    value = float(dict(flat(metrics, separator="_")).get(selection.metric, math.nan))
    return value if selection.mode == "min" else -value


def best_first(costs: Mapping[Epoch, float]) -> list[Epoch]:
    """Those whose cost is finite, the lowest first, and of equal ones the first given; NaN compares with nothing."""
    return sorted((epoch for epoch in costs if math.isfinite(costs[epoch])), key=lambda epoch: costs[epoch])


def describe(selection: Selection) -> str:
    """``lowest validation loss``, for people."""
    extreme = "lowest" if selection.mode == "min" else "highest"
    return f"{extreme} validation {selection.metric.replace('_at_', '@').replace('_', ' ')}"


def flat(values: Mapping[str, Any], *, separator: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested metrics with their names; recall@10 is ``recall_at_10``, since few tools take an @."""
    for key, value in values.items():
        name = key.replace("@", "_at_")
        if isinstance(value, Mapping):
            for inner, leaf in flat(value, separator=separator):
                yield f"{name}{separator}{inner}", leaf
        else:
            yield name, value
