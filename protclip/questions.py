"""What is asked and what is answered, in one form for Python, command line and server.

What is wrong with a question is a RequestError, and found when the question or its options are made where that is
possible: before a model is loaded.

Shape: D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Required

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from protclip.embeddings.reading import CONTENTS, METADATA, Content
from protclip.errors import RequestError
from protclip.index.filters import Filter, parse_filter
from protclip.index.index import NOT_SHOWN
from protclip.inputs import check_characters
from protclip.uniprot.residues import checked_residues

COLUMNS = tuple(name for name in METADATA.names if name not in (*NOT_SHOWN, "accession"))
"""What an answer may show of a row beside its accession."""


class Row(TypedDict, total=False):
    """A row of the index; what is not known of it is null."""

    accession: Required[str]
    name: str | None
    gene: list[str] | None
    """Names of the gene, the primary one first."""
    organism: str | None
    organism_id: int | None
    """NCBI taxonomy identifier."""
    reviewed: bool | None
    """Whether it is of Swiss-Prot."""
    length: int | None
    """Residues."""
    ec: list[str] | None
    """EC numbers."""
    text: str | None
    """The embedded text, where the index holds texts."""


class Protein(Row, total=False):
    """A row of the index, with its sequence."""

    sequence: Required[str | None]
    """Its residues; null where the server does not have them."""


class Hit(Row, total=False):
    """One answer to a question; what is not known of it is null."""

    rank: Required[int]
    """From 1, over all pages."""
    score: Required[float]
    """Cosine with the question."""
    percentile: Required[float | None]
    """Share of random questions, in %, whose best answer scores lower; null where the index has no such background."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one question."""

    model: str
    """Fingerprint of the model that made the vectors; ``external:NAME`` where it is not one of ours."""
    index: str
    """Fingerprint of the index."""
    content: Content
    """What the index holds."""
    query: str | None
    """Name of the question, where it has one."""
    truncated: bool
    """Whether the model saw the beginning of the question alone."""
    hits: list[Hit]
    """Best first, equal scores by accession."""
    map: list[tuple[float, float]] | None = None
    """Of each hit its place in a picture of these hits alone, by principal components; null where none was asked for.
    Distances are Euclidean ones between unit vectors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What was searched of an index of which some shards cannot be reached."""

    missing_shards: list[int]
    """Numbers of those, from 0."""
    searched_rows: int
    """Rows that may answer in the other shards."""
    total_rows: int
    """In all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialAnswer(Answer):
    """The answer of a part of the index; its percentiles are those of the whole."""

    partial: Coverage


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question: exactly one of text, sequence, accession and vector.

    Raises:
        RequestError: if it cannot be asked.
    """

    text: str | None = None
    """A description, such as ``FUNCTION: Hydrolyses ATP.``"""
    sequence: str | None = None
    """In one-letter code; kept as ``protclip.uniprot.residues`` maps it."""
    accession: str | None = None
    """Of a row of the index, whose own vector is asked."""
    vector: NDArray[np.float32] | None = None
    """(D,) of any length but 0, made by the model that made the index."""
    kind: Content | None = None
    """What the vector was made from; its percentiles need it."""
    name: str | None = None
    """Such as the accession in a FASTA file."""

    def __post_init__(self) -> None:
        given = [name for name in ("text", "sequence", "accession", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise RequestError(
                f"a question holds exactly one of text, sequence, accession and vector; this one holds "
                f"{', '.join(given) or 'none'}."
            )
        what = given[0] if self.name is None else f"{given[0]} {self.name!r:.80}"
        value = getattr(self, given[0])
        _check_content("kind", self.kind)
        if self.vector is not None:
            object.__setattr__(self, "vector", _unit_vector(value, what))
            return
        if not isinstance(value, str):
            raise RequestError(f"{what}: is {value!r:.60}; a string is needed.")
        if self.sequence is not None:
            object.__setattr__(self, "sequence", checked_residues(value, what))
        elif not value.strip():
            raise RequestError(f"{what} is empty; remove it.")
        check_characters(value, given[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How questions are answered.

    Raises:
        RequestError: for an option that cannot be.
    """

    k: int = 10
    """Answers wanted, 1 or more."""
    offset: int = 0
    """Answers left out at the beginning: the next page."""
    where: Filter | str | None = None
    """Which rows may answer: a filter, or its text (docs/index.md), which is kept as a filter."""
    min_score: float | None = None
    """Cosine below which nothing is an answer."""
    exact: bool = False
    """Compare with every vector, whatever the index's size."""
    exclude_self: bool = False
    """Leave out the question's own rows: those of its accession or name, of its very sequence, or of its very text."""
    columns: Sequence[str] | None = None
    """Which of COLUMNS are shown; None for all."""
    map: bool = False
    """Say where the hits lie to each other (``protclip.pca``)."""
    content: Content | None = None
    """What answers, where both an index of proteins and one of texts are loaded. Unsaid: proteins."""

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("offset", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
                raise RequestError(f"{name}={value!r:.60}: a whole number of {least} or more is needed.")
            object.__setattr__(self, name, int(value))
        if isinstance(self.where, str):
            object.__setattr__(self, "where", parse_filter(self.where))  # once, for all searches
        elif not isinstance(self.where, Filter | None):
            raise RequestError(f"where={self.where!r:.60}: the text of a filter is needed.")
        lowest: Any = self.min_score
        if lowest is not None and not (isinstance(lowest, Real) and -1 <= float(lowest) <= 1):
            raise RequestError(f"min_score={lowest!r:.60}: a cosine lies between -1 and 1.")
        if isinstance(self.columns, str):
            raise RequestError(f"columns={self.columns!r:.60}: a list of names is needed.")
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(self.columns))
        for column in self.columns or ():
            if column not in (*COLUMNS, "accession"):
                raise RequestError(
                    f"column {column!r:.60}: there is none; those of an answer are {', '.join(COLUMNS)}."
                )
        _check_content("content", self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A question as the model, or where it needs none the index, takes it."""

    question: Question
    vector: NDArray[np.float32] | None = None
    """(D,), where no model is needed."""
    kind: Content | None
    """What the vector is, or will be, made from, where it is known."""
    ids: Any = None
    """Token ids otherwise."""
    truncated: bool = False
    """Whether the model sees the beginning of the question alone."""

    @property
    def num_tokens(self) -> int:
        """What it costs to embed."""
        return 0 if self.ids is None else len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question as a vector."""

    question: Question
    vector: NDArray[np.float32]
    """(D,), of unit length."""
    kind: Content | None
    """What the vector was made from, where it is known."""
    truncated: bool = False
    """Whether the model saw the beginning of the question alone."""
    num_tokens: int = 0
    """That the model saw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What each residue of a protein has to do with a text (``protclip.explanation``)."""

    model: str
    """Fingerprint."""
    accession: str | None
    text: str
    residues: str
    """Those that the model sees; the numbers below are theirs."""
    length: int
    """Of the whole protein."""
    window: int
    stride: int
    occlusion: list[float]
    """Drop of the cosine when the residues round this one are masked."""
    segments: list[float] | None
    """Weight of the residue in PDA's segment; null of a model without PDA."""


def _check_content(name: str, value: Any) -> None:
    if value is not None and value not in CONTENTS:
        raise RequestError(f"{name}={value!r:.60}: allowed are {' and '.join(CONTENTS)}.")


def _unit_vector(value: Any, what: str) -> NDArray[np.float32]:
    """A vector as float32 of unit length.

    Raises:
        RequestError: if it is none.
    """
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{what}: is no list of numbers ({error!s:.200}).") from error
    largest = float(np.abs(vector).max()) if vector.ndim == 1 and len(vector) else 0.0
    if not 0 < largest < np.inf:
        raise RequestError(
            f"{what}: has shape {vector.shape} and {largest} as its largest number; one list of finite numbers is "
            "needed, not all 0."
        )
    vector = vector / largest  # so that no square is too large or too small for a float
    return (vector / np.linalg.norm(vector)).astype(np.float32)


DEFAULTS = Options()
"""How questions are answered unless it is said."""
