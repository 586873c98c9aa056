"""One optimizer step: the gradient, the update, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple

import torch
from torch.distributed import ProcessGroup

from protclip import distributed, layout
from protclip.train.learner import Learner, MicroBatch
from protclip.train.optim import set_learning_rate
from protclip.train.state import TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class Part(Generic[MicroBatch]):
    """One worker's part of a global batch."""

    batches: Sequence[MicroBatch]
    """Micro-batches of equal size, on the device."""
    accessions: Sequence[str]
    """Of their rows, in order."""
    num_tokens: int
    """Of their rows, as they are in the data."""
    num_places: int
    """The same with the padding that the network runs over."""


class Wishes(NamedTuple):
    """What a worker wants all to do together after a step."""

    stop: bool = False
    """End the run."""
    look: bool = False
    """Look whether a node is about to be taken away."""
    save: bool = False
    """Make a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What a step did; the same on every worker."""

    terms: dict[str, float]
    """Each term of the loss, without its weight: means over the global batch."""
    grad_norm: float
    """Of all parameters together, before it was bounded."""
    skipped: bool
    """The gradient was not finite, and nothing was changed."""
    num_tokens: int
    """Of the global batch."""
    num_places: int
    """Likewise, with padding."""
    wishes: Wishes
    """What any worker wants."""


def train_step(
    state: TrainState,
    learner: Learner[MicroBatch],
    part: Part[MicroBatch],
    *,
    group: ProcessGroup | None,
    max_grad_norm: float,
    wishes: Wishes,
) -> StepReport:
    """Forward, backward and update.

    A gradient that is not finite is dropped on every worker: averaging has made it the same on all.

    Args:
        state: its optimizer is stepped.
        learner: makes the gradient.
        part: this worker's of the global batch.
        group: the workers, or None for one process.
        max_grad_norm: a longer gradient is scaled down to it.
        wishes: this worker's.
    """
    state.optimizer.zero_grad(set_to_none=True)
    terms = learner.backward(part.batches)
    norm = layout.clip_gradients(learner.network, max_grad_norm, group).double()
    numbers = norm.new_tensor([part.num_tokens, part.num_places, *wishes])
    # All that the host wants to know, in one exchange and one wait for the device.
    mine = torch.cat([torch.stack([term.double() for term in terms.values()]), numbers])
    means = distributed.mean_over_workers(mine, group)
    *values, tokens, places, stop, look, save, grad_norm = torch.cat([means, norm.reshape(1)]).tolist()
    skipped = not math.isfinite(grad_norm)
    set_learning_rate(state.optimizer, state.schedule(state.step))
    if not skipped:
        state.optimizer.step()
        learner.bound_weights()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    workers = distributed.world_size(group)
    return StepReport(
        terms=dict(zip(terms, values, strict=True)),
        grad_norm=grad_norm,
        skipped=skipped,
        num_tokens=round(tokens * workers),
        num_places=round(places * workers),
        wishes=Wishes(stop=stop > 0, look=look > 0, save=save > 0),
    )
