"""What requests may hold. What answers hold is in serve.answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from protclip.embeddings.reading import Content
from protclip.errors import NotFoundError, RequestError
from protclip.inputs import LongPolicy
from protclip.questions import COLUMNS, Options, Question
from serve.forms import AtMost, Form, exactly_one
from serve.settings import DEFAULT_INDEX, Limits

MAX_NAME_LENGTH = 1_000
"""Characters of a name or an accession."""
MAX_WIDTH = 65_536
"""Numbers of a vector that is given."""
PROTEIN_MODEL, TEXT_MODEL = "protclip-protein", "protclip-text"
"""The two encoders, as clients of OpenAI's form name them."""

EncodingFormat = Literal["float", "base64"]
"""Numbers of a vector as a list, or as base64 of little-endian float32."""

Item = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH)]
# The patterns are for whoever reads the schema: a question checks its letters, and names the place.
Text = Annotated[Item, Field(json_schema_extra={"pattern": r"\S"})]
OneSequence = Annotated[Item, Field(json_schema_extra={"pattern": r"^[A-Za-z\s]*[A-Za-z][A-Za-z\s]*(\*\s*)?$"})]
Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True), AtMost("max_items")]
Sequences = Annotated[list[OneSequence], Field(min_length=1, fail_fast=True), AtMost("max_items")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(min_length=1, max_length=MAX_WIDTH, fail_fast=True)]
Column = Annotated[Item, Field(json_schema_extra={"enum": [*COLUMNS, "accession"]})]
Columns = Annotated[list[Column], Field(max_length=len(COLUMNS) + 1, fail_fast=True)]
Count = Annotated[int, Field(le=10**9)]

DIMENSIONS = "The first so many numbers of each embedding, of unit length anew; at most the model's own. Unsaid: all."


class EmbedRequest(Form):
    """Proteins or texts to embed."""

    model_config = ConfigDict(
        json_schema_extra=exactly_one("proteins", "texts", needs={"texts": {"long": {"enum": ["truncate", "error"]}}})
    )

    proteins: Sequences | None = Field(default=None, description="Amino acids in one-letter code.")
    texts: Texts | None = Field(default=None, description="Biotexts, such as 'FUNCTION: Hydrolyses ATP.'")
    encoding_format: EncodingFormat = Field(
        default="float", description="Lists of numbers, or base64 of little-endian float32."
    )
    long: LongPolicy = Field(
        default="truncate",
        description="What becomes of an item that is longer than the model sees: its end is cut off, it is refused, or "
        "(proteins) the mean of the embeddings of windows over it is given.",
    )
    dimensions: Count | None = Field(default=None, ge=1, description=DIMENSIONS)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.proteins is None) == (self.texts is None):
            raise ValueError("give either 'proteins' or 'texts'")
        if self.long == "window-mean" and self.texts is not None:
            raise ValueError("'long' is 'window-mean', which is for proteins; for texts: 'truncate' or 'error'")
        return self

    def questions(self, limits: Limits, dimension: int) -> list[Question]:
        """What is embedded.

        Args:
            limits: of the server.
            dimension: of the model.

        Raises:
            RequestError: for what cannot be embedded, where a limit is passed, or for more dimensions than the model's;
                the item is named.
        """
        _check_dimensions(self.dimensions, dimension)
        if self.proteins is not None:
            return proteins("proteins", self.proteins, limits)
        return texts("texts", self.texts or [], limits)


class EmbeddingsRequest(Form):
    """Texts or proteins to embed, in OpenAI's form."""

    model: Name = Field(description=f"{PROTEIN_MODEL} or {TEXT_MODEL}: what the input is.")
    input: Text | Texts = Field(description="One item, or several; token ids are not taken.")
    encoding_format: EncodingFormat = "float"
    dimensions: Count | None = Field(default=None, ge=1, description=DIMENSIONS)
    user: Annotated[str, StringConstraints(max_length=MAX_NAME_LENGTH)] | None = Field(
        default=None, description="Not looked at."
    )

    @classmethod
    def reworded(cls, problems: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """An input that is neither a string nor a list of strings fails as both."""
        of_input = [problem for problem in problems if problem["loc"][:1] == ("input",) and len(problem["loc"]) > 1]
        others = [problem for problem in problems if problem not in of_input]
        if of_input:
            # As a list it has got further, where it is one.
            last = of_input[-1]
            if last["type"] in {"list_type", "string_type"}:
                short = [problem for problem in of_input if problem["type"] == "string_too_short"]
                needed = "a string or a list of strings is needed; token ids are not taken"
                last = {**last, "type": "needed", "msg": short[0]["msg"] if short else needed}
            others.insert(0, {**last, "loc": ("input", *last["loc"][2:])})
        return others

    def questions(self, limits: Limits, dimension: int) -> list[Question]:
        """What is embedded.

        Raises:
            NotFoundError: for another model.
            RequestError: as EmbedRequest's.
        """
        if self.model not in (PROTEIN_MODEL, TEXT_MODEL):
            raise NotFoundError(f"model {self.model!r:.80}: is not here; there are {PROTEIN_MODEL} and {TEXT_MODEL}.")
        _check_dimensions(self.dimensions, dimension)
        items = [self.input] if isinstance(self.input, str) else self.input
        return (proteins if self.model == PROTEIN_MODEL else texts)("input", items, limits)


class ScoreRequest(Form):
    """Pairs: the first sequence with the first text, and so on."""

    sequences: Sequences = Field(description="Amino acids in one-letter code.")
    texts: Texts = Field(description="As many texts.")

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.sequences) != len(self.texts):
            raise ValueError(
                f"{len(self.sequences)} sequences and {len(self.texts)} texts make no pairs; give as many of each"
            )
        return self

    def questions(self, limits: Limits) -> list[Question]:
        """The sequences, then the texts; raises RequestError as EmbedRequest's."""
        return [*proteins("sequences", self.sequences, limits), *texts("texts", self.texts, limits)]


class ClassifyRequest(Form):
    """Sequences, and the texts that compete for each."""

    sequences: Sequences = Field(description="Amino acids in one-letter code.")
    texts: Texts = Field(description="Texts, such as 'FUNCTION: Hydrolyses ATP.'")

    def questions(self, limits: Limits) -> list[Question]:
        """The sequences, then the texts; raises RequestError as EmbedRequest's."""
        return [*proteins("sequences", self.sequences, limits), *texts("texts", self.texts, limits)]


class ExplainRequest(Form):
    """A text, and the protein whose residues it may speak of: exactly one of sequence and accession."""

    model_config = ConfigDict(json_schema_extra=exactly_one("sequence", "accession", needs={}))

    text: Text = Field(description="A description, such as 'FUNCTION: Hydrolyses ATP.'")
    sequence: OneSequence | None = Field(default=None, description="Amino acids in one-letter code.")
    accession: Name | None = Field(default=None, description="A protein whose sequence the server has.")
    index: Name = Field(default=DEFAULT_INDEX, description="Which of the server's indexes holds the accession.")
    window: Count | None = Field(default=None, ge=1, description="Residues masked together, an odd number. Unsaid: 11.")
    stride: Count = Field(
        default=1, ge=1, description="Residues from one window to the next, at least; the answer has the one used."
    )

    @model_validator(mode="after")
    def _one_protein(self) -> Self:
        if (self.sequence is None) == (self.accession is None):
            raise ValueError("give exactly one of 'sequence', 'accession'")
        return self

    def check(self, limits: Limits) -> None:
        """Refuse what cannot be explained; raises RequestError where a limit is passed, or as EmbedRequest's."""
        _check_length("text", self.text, limits.max_text_length)
        _check_length("sequence", self.sequence or "", limits.max_sequence_length)
        Question(text=self.text)
        Question(sequence=self.sequence, accession=self.accession)


KINDS = ("text", "sequence", "accession", "embedding")
_OF_EMBEDDING = {kind: {"embedding_kind": {"type": "null"}} for kind in KINDS[:3]}


class Query(Form):
    """One question: exactly one of text, sequence, accession and embedding."""

    model_config = ConfigDict(json_schema_extra=exactly_one(*KINDS, needs=_OF_EMBEDDING))
    kinds: ClassVar[tuple[str, ...]] = KINDS

    text: Text | None = Field(default=None, description="A description of the proteins that are sought.")
    sequence: OneSequence | None = Field(default=None, description="Amino acids in one-letter code.")
    accession: Name | None = Field(default=None, description="A row of the index, by its own vector.")
    embedding: Vector | None = Field(default=None, description="A vector by the model of the index.")
    embedding_kind: Content | None = Field(default=None, description="What the vector was made from, for percentiles.")
    name: Name | None = Field(default=None, description="Given back as the answer's 'query'.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in self.kinds) != 1:
            raise ValueError(f"give exactly one of {', '.join(map(repr, self.kinds))}")
        if self.embedding_kind is not None and self.embedding is None:
            raise ValueError("'embedding_kind' is that of an 'embedding'")
        return self

    def question(self, place: str, limits: Limits, dimension: int) -> Question:
        """What is asked.

        Args:
            place: of the question in the request, such as ``queries[2].``
            limits: of the server.
            dimension: of the index.

        Raises:
            RequestError: where it cannot be asked, or a limit is passed; the field is named.
        """
        _check_length(f"{place}text", self.text or "", limits.max_text_length)
        _check_length(f"{place}sequence", self.sequence or "", limits.max_sequence_length)
        if self.embedding is not None and len(self.embedding) != dimension:
            raise RequestError(
                f"{place}embedding: has {len(self.embedding)} numbers, and those of the index {dimension}."
            )
        vector = None if self.embedding is None else np.array(self.embedding)
        try:
            return Question(
                text=self.text,
                sequence=self.sequence,
                accession=self.accession,
                vector=vector,
                kind=self.embedding_kind,
                name=self.name,
            )
        except RequestError as error:
            raise RequestError(f"{place.rstrip('.')}: {error}" if place else str(error)) from None


class SearchRequest(Query):
    """One question, or several in ``queries``, and how they are answered."""

    model_config = ConfigDict(
        json_schema_extra=exactly_one(
            *KINDS,
            "queries",
            needs={**_OF_EMBEDDING, "queries": {"embedding_kind": {"type": "null"}, "name": {"type": "null"}}},
        )
    )
    kinds: ClassVar[tuple[str, ...]] = (*KINDS, "queries")

    queries: Annotated[list[Query], Field(min_length=1, fail_fast=True), AtMost("max_items")] | None = Field(
        default=None, description="Several questions; the options below are those of all of them."
    )
    index: Name = Field(default=DEFAULT_INDEX, description="Which of the server's indexes is asked, by its name.")
    k: Count = Field(default=10, ge=1, description="Answers wanted; fewer come where the index holds fewer.")
    offset: Count = Field(default=0, ge=0, description="Answers left out at the beginning: the next page.")
    filter: Item | None = Field(
        default=None, description="Which rows may answer, such as 'organism_id = 9606 and (reviewed or ec = 3.6)'."
    )
    min_score: Number | None = Field(default=None, ge=-1, le=1, description="Cosine below which nothing is an answer.")
    exact: bool = Field(default=False, description="Compare with every vector, whatever the index's size.")
    exclude_self: bool = Field(
        default=False, description="Leave out rows of the question's accession, very sequence or very text."
    )
    map: bool = Field(default=False, description="Say where the hits lie to each other, as the answer's 'map'.")
    columns: Columns | None = Field(
        default=None, description=f"What is shown beside score and accession: {', '.join(COLUMNS)}. Unsaid: all."
    )

    allow_partial: bool = Field(
        default=False,
        description="Answer from what can be reached of an index in shards, and say in 'partial' what that is; else "
        "503 where a shard is missing.",
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.queries is not None and self.name is not None:
            raise ValueError("'name' is that of one question; give those of 'queries' to each of them")
        return self

    def questions(self, limits: Limits, dimension: int) -> list[Question]:
        """What is asked; raises RequestError as Query's."""
        if self.queries is None:
            return [self.question("", limits, dimension)]
        return [query.question(f"queries[{i}].", limits, dimension) for i, query in enumerate(self.queries)]

    def options(self, limits: Limits) -> Options:
        """How it is answered.

        Raises:
            RequestError: for what cannot be, or where a limit is passed; the field is named.
        """
        _check_length("filter", self.filter or "", limits.max_filter_length)
        num_queries = len(self.queries or "1")
        if num_queries * (self.offset + self.k) > limits.max_k:
            asked = f"k: {self.k} answers are wanted" + (f" after the first {self.offset}" if self.offset else "")
            asked += f" to each of {num_queries} questions" if num_queries > 1 else ""
            raise RequestError(f"{asked}; at most {limits.max_k} are given to a request.")
        return Options(
            k=self.k,
            offset=self.offset,
            where=self.filter,
            min_score=self.min_score,
            exact=self.exact,
            exclude_self=self.exclude_self,
            map=self.map,
            columns=self.columns,
        )


def proteins(field: str, sequences: Sequence[str], limits: Limits) -> list[Question]:
    """Sequences as questions, each named by its place; raises RequestError for one that cannot be embedded."""
    return [
        Question(sequence=item, name=place) for place, item in _places(field, sequences, limits.max_sequence_length)
    ]


def texts(field: str, items: Sequence[str], limits: Limits) -> list[Question]:
    """Texts as questions, each named by its place; raises RequestError for one that cannot be embedded."""
    return [Question(text=item, name=place) for place, item in _places(field, items, limits.max_text_length)]


def _places(field: str, items: Sequence[str], max_length: int) -> Iterator[tuple[str, str]]:
    for i, item in enumerate(items):
        place = f"{field}[{i}]"
        _check_length(place, item, max_length)
        yield place, item


def _check_dimensions(wanted: int | None, dimension: int) -> None:
    if wanted is not None and wanted > dimension:
        raise RequestError(
            f"dimensions: {wanted} are wanted; an embedding has {dimension}, and at most these are given."
        )


def _check_length(field: str, value: str, max_length: int) -> None:
    if len(value) > max_length:
        raise RequestError(f"{field}: has {len(value)} characters; at most {max_length} are taken.")
