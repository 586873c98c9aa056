"""How good a model is, in one line, from what its checkpoint records of the held-out pairs.

No torch here: ``protclip search`` reads it before a model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protclip.checked import Count, checked
from protclip.errors import DataError

WEAK_RECALL = 0.1
"""A model is weak if it finds the right protein first for a smaller share of held-out texts than this …"""
WEAK_TIMES_CHANCE = 10
"""… or less than so many times as often as a random order does, which is what counts where the pairs are few …"""
FEW_PAIRS = 10_000
"""… or was trained on fewer pairs than this: what it finds among texts of their kind says nothing of other texts."""
MAX_PAIRS = 1000
"""Held-out pairs among which the right one is looked for, the first ones where there are more; so models compare."""
AMONG_FIRST = f"among_{MAX_PAIRS}"
"""Key of the retrieval among these, where the validation pairs are more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Recall@1 of held-out texts among the proteins of at most MAX_PAIRS pairs, beside that of a random order."""

    recall_at_1: float
    chance: float
    num_pairs: int
    num_train_pairs: int | None = None
    """Pairs that the model was trained on; None where that was not recorded."""

    @property
    def has_few_pairs(self) -> bool:
        """Whether it was trained on fewer than FEW_PAIRS."""
        return self.num_train_pairs is not None and self.num_train_pairs < FEW_PAIRS

    @property
    def is_weak(self) -> bool:
        """Whether it is below WEAK_RECALL, or below WEAK_TIMES_CHANCE times chance, or was trained on few pairs."""
        return self.has_few_pairs or self.recall_at_1 < max(WEAK_RECALL, WEAK_TIMES_CHANCE * self.chance)

    def __str__(self) -> str:
        """One sentence, which says so where it is weak."""
        sentence = (
            f"the right protein comes first for {self.recall_at_1:.1%} of {self.num_pairs:,} held-out texts "
            f"({self.chance:.1%} by chance)"
        )
        if self.has_few_pairs:
            sentence = f"trained on {self.num_train_pairs:,} pairs only; {sentence}"
        return f"a weak model, for trials: {sentence}" if self.is_weak else sentence


NOT_MEASURED = "how well this model finds was not measured"
"""In place of a quality's sentence."""


def quality_of(metrics: Any, data: Any) -> Quality | None:
    """The quality that a checkpoint's record tells of; None where it was not measured, as of an imported model.

    Whoever saves a checkpoint may record metrics and data of another form, which are none of these.

    Args:
        metrics: what evaluation found.
        data: what the model was trained on.
    """
    valid = metrics.get("valid") if isinstance(metrics, Mapping) else None
    among = valid.get(AMONG_FIRST, valid) if isinstance(valid, Mapping) else None
    try:
        measured = checked(_Retrieval, among, "manifest.json")
    except DataError:
        return None
    recall, chance = (of.get("recall@1", math.nan) for of in (measured.text_to_protein, measured.chance))
    if not (0 <= recall <= 1 and 0 <= chance <= 1):
        return None
    num_train_pairs = data.get("train_pairs") if isinstance(data, Mapping) else None
    return Quality(
        recall_at_1=recall,
        chance=chance,
        num_pairs=measured.num_pairs,
        num_train_pairs=num_train_pairs if isinstance(num_train_pairs, int) else None,
    )


def quality_note(quality: Quality | None) -> str | None:
    """The line that users are shown with answers: of a weak model, or one that was not measured; None of others."""
    if quality is None:
        return NOT_MEASURED
    return str(quality) if quality.is_weak else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Retrieval:
    num_pairs: Count
    text_to_protein: dict[str, float]
    chance: dict[str, float]
