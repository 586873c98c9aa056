"""Which epoch of a run is the best one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from protclip.config import SelectionConfig

Epoch = TypeVar("Epoch")


def cost(selection: SelectionConfig, valid: Mapping[str, Any]) -> float:
    """What an epoch is selected by: the less, the better. NaN where it was not measured.

    Args:
        selection: names the measure.
        valid: the measures of an epoch, as ``validation_metrics`` and the terms of the loss give them.
    """
    values: Any = valid
    *way, measure = _PLACES[selection.metric]
    for name in way:
        values = values.get(name, {})
    value = float(values.get(measure, math.nan))
    return value if selection.mode == "min" else -value


def best_first(costs: Mapping[Epoch, float]) -> list[Epoch]:
    """Those whose cost is finite, the lowest first, and of equal ones the first given; NaN compares with nothing."""
    return sorted((epoch for epoch in costs if math.isfinite(costs[epoch])), key=lambda epoch: costs[epoch])


def describe(selection: SelectionConfig) -> str:
    """``lowest validation loss``, for people."""
    extreme = "lowest" if selection.mode == "min" else "highest"
    return f"{extreme} validation {' '.join(_PLACES[selection.metric]).replace('_', ' ')}"


_PLACES = {
    "loss": ("loss",),
    **{
        f"{way}_{name}": (way, measure)
        for way in ("text_to_protein", "protein_to_text")
        for name, measure in (("recall_at_1", "recall@1"), ("recall_at_10", "recall@10"), ("mrr", "mrr"))
    },
}
"""Metric → where an epoch's measures have it."""
