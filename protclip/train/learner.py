"""What the core of training needs to know of what is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from torch import Tensor, nn

MicroBatch = TypeVar("MicroBatch")


class Learner(ABC, Generic[MicroBatch]):
    """A network and the gradient of its loss. The loss is made of named terms."""

    network: nn.Module
    """What is trained, replicated or sharded where there are several workers."""

    @abstractmethod
    def backward(self, batches: Sequence[MicroBatch]) -> Mapping[str, Tensor]:
        """Add the gradient over the global batch, averaged over the workers.

        Args:
            batches: this worker's micro-batches of the global batch.

        Returns:
            The terms of the loss without their weights, detached; their mean over the workers is that of the global
            batch.
        """

    def loss(self, terms: Mapping[str, float]) -> float:
        """The loss, of its terms."""
        return sum(terms.values())

    def bad_rows(self, batches: Sequence[MicroBatch]) -> list[int]:  # noqa: ARG002
        """This worker's rows of a step whose own outputs are not finite, by their place in it."""
        return []

    def bound_weights(self) -> None:
        """Bring weights that an update has taken out of their range back into it."""
