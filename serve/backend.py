"""What the routes need of a replica, whatever is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protclip.inputs import LongPolicy
from protclip.questions import Answer, Asked, Explanation, Options, Protein, Question
from serve.answers import ModelInfo, NamedIndex
from serve.metrics import Load, Metrics


class Backend(Protocol):
    """What the routes need of a replica."""

    fingerprint: str
    """Of the model."""
    metrics: Metrics

    async def embed(self, questions: Sequence[Question], *, long: LongPolicy = "truncate") -> list[Asked]:
        """Texts and sequences as vectors; raises RequestError for one that is too long, where that is the policy."""

    async def search(
        self, questions: Sequence[Question], options: Options, *, index: str, allow_partial: bool
    ) -> list[Answer]:
        """The answer to each question.

        Raises NotFoundError for an index that is not served, UnavailableError where a part of it is missing and
        partial answers are not allowed.
        """

    async def explain(
        self,
        text: str,
        *,
        sequence: str | None,
        accession: str | None,
        index: str,
        window: int | None,
        stride: int,
    ) -> Explanation:
        """What each residue has to do with a text; raises NotFoundError for an accession of unknown sequence."""

    async def protein(self, accession: str, *, index: str) -> Protein:
        """What an index knows of a protein, and its sequence; raises NotFoundError for one that it does not hold, or no
        such index."""

    def describe_model(self) -> ModelInfo:
        """The model, at once."""

    def describe_indexes(self) -> list[NamedIndex]:
        """The indexes, at once; ``default`` first, where there is one."""

    def index_dimension(self, index: str) -> int:
        """Width of an index's vectors, at once; raises NotFoundError for an index that is not served."""

    def refused(self) -> str | None:
        """For what kind of error the last change of the indexes was refused, at once; None where it was not."""

    def load(self) -> Load:
        """What there is to do at this moment, at once."""
