"""What answers hold. The forms of requests are in serve.requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from protclip.embeddings.reading import Content
from protclip.index.manifest import IndexManifest
from protclip.inputs import Dtype
from protclip.questions import Answer, Coverage, Hit, PartialAnswer, Protein, Row
from serve.settings import Limits

_WITH_DOCSTRINGS = ConfigDict(use_attribute_docstrings=True)
for _kind in (Row, Protein, Hit, Answer, PartialAnswer, Coverage):
    _kind.__pydantic_config__ = _WITH_DOCSTRINGS  # type: ignore[union-attr]

Embedding = list[float] | str


class EmbedResponse(BaseModel):
    """Embeddings in the order of the request."""

    model: str = Field(description="Fingerprint of the model.")
    dimension: int
    embeddings: list[Embedding] = Field(
        description="Unit vectors, whose dot products are cosines: numbers, or base64 of little-endian float32."
    )
    truncated: list[bool] = Field(description="Of each, whether the model saw its beginning alone.")


class EmbeddingItem(BaseModel):
    """One embedding, in OpenAI's form."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Embedding
    truncated: bool = Field(description="Whether the model saw the beginning alone; not of OpenAI's form.")


class Usage(BaseModel):
    """Tokens that the model saw."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Embeddings in the order of the request, in OpenAI's form."""

    object: Literal["list"] = "list"
    model: str
    data: list[EmbeddingItem]
    usage: Usage


class ModelItem(BaseModel):
    """A model that /v1/embeddings takes, in OpenAI's form."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Always 0: a checkpoint does not know when it was made.")
    owned_by: str


class ModelsResponse(BaseModel):
    """Models that /v1/embeddings takes, in OpenAI's form."""

    object: Literal["list"] = "list"
    data: list[ModelItem]


class ScoreResponse(BaseModel):
    """How well each sequence fits its text."""

    model: str = Field(description="Fingerprint of the model.")
    scores: list[float] = Field(description="Cosines, from -1 to 1, in the order of the pairs.")


class ClassifyResponse(BaseModel):
    """How likely each text is that of each sequence, among the given ones."""

    model: str = Field(description="Fingerprint of the model.")
    probabilities: list[list[float]] = Field(
        description="A row for each sequence, a number for each text; a row sums to 1, so that a number says nothing "
        "of its text alone."
    )


class ExplainResponse(BaseModel):
    """What each residue of a protein has to do with a text."""

    model: str = Field(description="Fingerprint of the model.")
    accession: str | None = Field(description="As it was asked.")
    text: str
    residues: str = Field(description="Those that the model sees; the numbers are theirs.")
    length: int = Field(description="Residues of the whole protein.")
    window: int = Field(description="Residues masked together.")
    stride: int = Field(description="Residues from one window to the next, as it was used.")
    stride_grew: bool = Field(description="Whether that is more than was asked, for all to be computed in time.")
    occlusion: list[float] = Field(description="Drop of the cosine when the residues round this one are masked.")
    segments: list[float] | None = Field(description="Weight in PDA's segment; null of a model without PDA.")


class Answers(BaseModel):
    """The answers to several questions, in their order."""

    answers: list[PartialAnswer | Answer]


class IndexInfo(BaseModel):
    """What an index holds."""

    content: Content
    count: int = Field(description="Rows that may answer.")
    dimension: int
    dtype: Dtype = Field(description="In which the model computed, and computes questions.")
    recall_at_10: float | None = Field(description="The lowest that was measured; null where nothing was.")


class NamedIndex(IndexInfo):
    """An index, as /v1/indexes tells of it."""

    name: str
    fingerprint: str = Field(description="As in an answer's 'index'.")
    model: str = Field(description="Fingerprint of the model that made it.")
    created: datetime | None = Field(description="When its manifest was written; null where the store does not say.")
    age_s: float | None = Field(description="Seconds since then.")
    num_shards: int | None = Field(
        default=None, description="Into so many it is shared out; null where each replica has all of it."
    )


def describe_index(
    name: str, manifest: IndexManifest, written: datetime | None, *, num_shards: int | None = None
) -> NamedIndex:
    """An index by its manifest.

    Args:
        name: under which it is served.
        manifest: of the index.
        written: when the manifest was written, where that is known.
        num_shards: where it is shared out.
    """
    age = None if written is None else datetime.now(UTC) - written.astimezone(UTC)
    return NamedIndex(
        name=name,
        content=manifest.content,
        count=manifest.count,
        dimension=manifest.dimension,
        dtype=manifest.dtype,
        recall_at_10=manifest.recall_at_10,
        fingerprint=manifest.fingerprint,
        model=manifest.model_fingerprint,
        created=written,
        age_s=None if age is None else age.total_seconds(),
        num_shards=num_shards,
    )


class IndexesResponse(BaseModel):
    """The indexes that answer."""

    indexes: list[NamedIndex]
    refused: str | None = Field(
        description="For what kind of error the last change of them was refused, so that the old ones answer; the "
        "server's log has the reason. Null where it was not."
    )


class ModelQuality(BaseModel):
    """How often the model finds the right one of held-out proteins for its text."""

    recall_at_1: float = Field(description="Share of held-out texts for which the right protein comes first.")
    chance: float = Field(description="The same of a random order.")
    num_pairs: int = Field(description="Held-out pairs among which it is looked for, 1,000 at most.")
    num_train_pairs: int | None = Field(description="Pairs that it was trained on; null where that was not recorded.")
    is_weak: bool = Field(description="By the criterion of docs/training.md.")


class ModelInfo(BaseModel):
    """The loaded model."""

    fingerprint: str
    dimension: int
    max_protein_tokens: int = Field(description="That the model sees: residues + 2.")
    max_text_tokens: int
    num_parameters: int
    scale: float = Field(description="exp(logit_scale), by which cosines are multiplied in training and to classify.")
    device: str
    dtype: Dtype
    metrics: dict[str, Any] = Field(description="What evaluation found, as in the model's card; empty where unknown.")
    quality: ModelQuality | None = Field(description="Null where it was not measured.")
    quality_note: str | None = Field(
        description="In words, where the model is weak or was not measured; null otherwise."
    )


class Policies(BaseModel):
    """How requests are treated, in words."""

    long: str = (
        "What is longer than the model sees is cut at its end; /v1/embed can refuse it, or see proteins in windows."
    )
    letters: str = "The 20 amino acids and BJOUXZ in either case; white space and one * at the end are left out."
    errors: str = "One bad item refuses the whole request, and is named."


class Info(BaseModel):
    """What the server is."""

    version: str = Field(description="Of this software.")
    model: ModelInfo
    index: NamedIndex = Field(description="The one that is asked where a request names none, or the first.")
    indexes: list[str] = Field(description="The names of all.")
    limits: Limits
    policies: Policies


class Health(BaseModel):
    """Given when the model and the indexes are loaded."""

    status: Literal["ok"] = "ok"
    model: str = Field(description="Fingerprint of the model.")
    index: IndexInfo = Field(description="The one that is asked where a request names none, or the first.")
    indexes: list[str] = Field(description="The names of all.")
    version: str = Field(description="Of this software.")


class Alive(BaseModel):
    """Given by a replica that answers."""

    status: Literal["ok"] = "ok"


class PartlyReady(Alive):
    """Given where some shards cannot be reached: what allows partial answers is answered."""

    missing_shards: list[int] = Field(description="Numbers of those, from 0.")


class ErrorBody(BaseModel):
    """What went wrong, and what to do."""

    type: str
    message: str
    request_id: str | None = Field(default=None, description="As in the header X-Request-Id, and in the server's log.")


class ErrorResponse(BaseModel):
    """The one form of all errors."""

    error: ErrorBody
