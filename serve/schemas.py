"""What a request may hold, and what an answer holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protclip.errors import RequestError
from protclip.index.embeddings import Content, Dtype
from protclip.questions import COLUMNS, Answer, Hit, Options, Question
from serve.settings import Limits


def _encodable(value: str) -> str:
    """JSON may escape half of a surrogate pair, which is no character and which no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair at character {error.start + 1}") from error
    return value


Item = Annotated[str, StringConstraints(min_length=1), AfterValidator(_encodable)]
Items = Annotated[list[Item], Field(fail_fast=True)]  # a million wrong ones are not a million errors
Number = Annotated[float, Field(allow_inf_nan=False)]
MAX_FIELDS = 50
"""Of a request, wrong ones among them."""

Hit.__pydantic_config__ = Answer.__pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[attr-defined]


class _Request(BaseModel):
    # Strict: "k": "5" and "k": true are mistakes to name, not values to guess.
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, body: Any) -> Any:
        # Each field too many would be an error of its own, which costs a hundred times its bytes.
        if isinstance(body, dict) and len(body) > MAX_FIELDS:
            raise ValueError(f"has {len(body)} fields; those of this route are {', '.join(cls.model_fields)}")
        return body


class EmbedRequest(_Request):
    """Proteins or texts to embed."""

    proteins: Items | None = Field(default=None, min_length=1, description="Amino acids in one-letter code.")
    texts: Items | None = Field(default=None, min_length=1, description="Biotexts, such as 'FUNCTION: Hydrolyses ATP.'")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.proteins is None) == (self.texts is None):
            raise ValueError("give either 'proteins' or 'texts'")
        return self

    def questions(self, limits: Limits) -> list[Question]:
        """What is embedded.

        Raises:
            RequestError: for what cannot be embedded, or where a limit is passed; the item is named.
        """
        for field, items, longest in (
            ("proteins", self.proteins, limits.max_sequence_length),
            ("texts", self.texts, limits.max_text_length),
        ):
            _check_items(field, items or [], limits.max_items, longest)
        if self.proteins is not None:
            return [Question(sequence=item, name=f"proteins[{i}]") for i, item in enumerate(self.proteins)]
        return [Question(text=item, name=f"texts[{i}]") for i, item in enumerate(self.texts or [])]


class SearchRequest(_Request):
    """One question: exactly one of text, sequence, accession and embedding."""

    text: Item | None = Field(default=None, description="A description of the proteins that are sought.")
    sequence: Item | None = Field(default=None, description="Amino acids in one-letter code.")
    accession: Item | None = Field(default=None, description="A row of the index, by its own vector.")
    embedding: Annotated[list[Number], Field(fail_fast=True)] | None = Field(
        default=None, description="A vector by the model of the index."
    )
    embedding_kind: Content | None = Field(default=None, description="What the vector was made from, for percentiles.")
    k: int = Field(default=10, ge=1, description="Answers wanted; fewer come where the index holds fewer.")
    offset: int = Field(default=0, ge=0, description="Answers left out at the beginning: the next page.")
    filter: Item | None = Field(
        default=None, description="Which rows may answer, such as 'organism_id = 9606 and (reviewed or ec = 3.6)'."
    )
    min_score: Number | None = Field(default=None, ge=-1, le=1, description="Cosine below which nothing is an answer.")
    exact: bool = Field(default=False, description="Compare with every vector, whatever the index's size.")
    exclude_self: bool = Field(
        default=False, description="Leave out rows of the question's accession, very sequence or very text."
    )
    columns: Items | None = Field(
        default=None, description=f"What is shown beside score and accession: {', '.join(COLUMNS)}. Unsaid: all."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(value is not None for value in (self.text, self.sequence, self.accession, self.embedding)) != 1:
            raise ValueError("give exactly one of 'text', 'sequence', 'accession' and 'embedding'")
        return self

    def question(self, limits: Limits) -> Question:
        """What is asked.

        Raises:
            RequestError: where it cannot be asked, or a limit is passed; the field is named.
        """
        _check_length("text", self.text or "", limits.max_text_length)
        _check_length("sequence", self.sequence or "", limits.max_sequence_length)
        _check_length("filter", self.filter or "", limits.max_filter_length)
        vector = None if self.embedding is None else np.array(self.embedding)
        return Question(
            text=self.text, sequence=self.sequence, accession=self.accession, vector=vector, kind=self.embedding_kind
        )

    def options(self, limits: Limits) -> Options:
        """How it is answered.

        Raises:
            RequestError: for what cannot be, or where a limit is passed; the field is named.
        """
        if self.offset + self.k > limits.max_k:
            asked = f"k: {self.k} answers are wanted" + (f" after the first {self.offset}" if self.offset else "")
            raise RequestError(f"{asked}; at most {limits.max_k} are given.")
        return Options(
            k=self.k,
            offset=self.offset,
            where=self.filter,
            min_score=self.min_score,
            exact=self.exact,
            exclude_self=self.exclude_self,
            columns=self.columns,
        )


class EmbedResponse(BaseModel):
    """Embeddings in the order of the request."""

    model: str = Field(description="Fingerprint of the model.")
    dimension: int
    embeddings: list[list[float]] = Field(description="Unit vectors: a dot product is a cosine.")


class IndexInfo(BaseModel):
    """What the loaded index holds."""

    content: Content
    count: int
    dimension: int
    dtype: Dtype = Field(description="In which the model computed, and computes questions.")
    recall_at_10: float | None


class Health(BaseModel):
    """Given when the model and the index are loaded and answer."""

    status: Literal["ok"] = "ok"
    model: str = Field(description="Fingerprint of the model.")
    index: IndexInfo
    version: str = Field(description="Of this software.")


class ErrorBody(BaseModel):
    """What went wrong, and what to do."""

    type: str
    message: str
    request_id: str | None = Field(description="As in the header X-Request-Id, and in the server's log.")


class ErrorResponse(BaseModel):
    """The one form of all errors."""

    error: ErrorBody


def _check_items(field: str, items: Sequence[str], max_items: int, max_length: int) -> None:
    if len(items) > max_items:
        raise RequestError(f"{field}: holds {len(items)} items; at most {max_items} fit into a request. Split it.")
    for i, item in enumerate(items):
        _check_length(f"{field}[{i}]", item, max_length)


def _check_length(field: str, value: str, max_length: int) -> None:
    if len(value) > max_length:
        raise RequestError(f"{field}: has {len(value)} characters; at most {max_length} are taken.")
