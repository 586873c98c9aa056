"""What a request may hold, and what an answer holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protclip.errors import RequestError
from protclip.index.embeddings import Dtype
from serve.settings import Limits


def _encodable(value: str) -> str:
    """JSON may escape half of a surrogate pair, which is no character and which no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair at character {error.start + 1}") from error
    return value


Item = Annotated[str, StringConstraints(min_length=1), AfterValidator(_encodable)]


class _Request(BaseModel):
    # Strict: "k": "5" and "k": true are mistakes to name, not values to guess.
    model_config = ConfigDict(extra="forbid", strict=True)


class EmbedRequest(_Request):
    """Proteins or texts to embed."""

    proteins: list[Item] | None = Field(default=None, min_length=1, description="Amino acids in one-letter code.")
    texts: list[Item] | None = Field(
        default=None, min_length=1, description="Biotexts, such as 'FUNCTION: Hydrolyses ATP.'"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.proteins is None) == (self.texts is None):
            raise ValueError("give either 'proteins' or 'texts'")
        return self

    def check(self, limits: Limits) -> None:
        """Raise RequestError, naming the field, where a limit is passed."""
        for field, items, longest in (
            ("proteins", self.proteins, limits.max_sequence_length),
            ("texts", self.texts, limits.max_text_length),
        ):
            _check_items(field, items or [], limits.max_items, longest)


class SearchRequest(_Request):
    """One question: a text or a sequence."""

    text: Item | None = Field(default=None, description="A description of the proteins that are sought.")
    sequence: Item | None = Field(default=None, description="Amino acids in one-letter code.")
    k: int = Field(default=10, ge=1, description="Answers wanted; fewer come where the index holds fewer.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.text is None) == (self.sequence is None):
            raise ValueError("give either 'text' or 'sequence'")
        return self

    def check(self, limits: Limits) -> None:
        """Raise RequestError, naming the field, where a limit is passed."""
        _check_length("text", self.text or "", limits.max_text_length)
        _check_length("sequence", self.sequence or "", limits.max_sequence_length)
        if self.k > limits.max_k:
            raise RequestError(f"k: {self.k} answers are wanted; at most {limits.max_k} are given.")


class EmbedResponse(BaseModel):
    """Embeddings in the order of the request."""

    model: str = Field(description="Fingerprint of the model.")
    dimension: int
    embeddings: list[list[float]] = Field(description="Unit vectors: a dot product is a cosine.")


class Hit(BaseModel):
    """One answer; what is not known of it is null."""

    rank: int
    score: float = Field(description="Cosine with the question.")
    accession: str
    name: str | None
    organism: str | None
    organism_id: int | None
    reviewed: bool | None
    length: int | None
    ec: list[str] | None
    gene: list[str] | None
    text: str | None = Field(description="The embedded text, where the index holds texts.")


class SearchResponse(BaseModel):
    """Answers, best first."""

    model: str = Field(description="Fingerprint of the model.")
    content: Literal["protein", "text"] = Field(description="What the index holds.")
    hits: list[Hit]


class IndexInfo(BaseModel):
    """What the loaded index holds."""

    content: Literal["protein", "text"]
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
