"""The routes, over any backend that embeds and searches. Nothing here knows Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from fastapi import FastAPI, Response

from protclip.questions import Answer, Asked, Options, Question
from protclip.version import __version__
from serve.errors import install_error_handlers
from serve.schemas import (
    EmbedRequest,
    EmbedResponse,
    ErrorResponse,
    Health,
    IndexInfo,
    SearchRequest,
)
from serve.settings import Limits

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "No key, or one that is not known."},
    403: {"model": ErrorResponse, "description": "A Host header that is not this server's."},
    404: {"model": ErrorResponse, "description": "What the request names is not in the index."},
    408: {"model": ErrorResponse, "description": "The body did not come in time."},
    413: {"model": ErrorResponse, "description": "The body is larger than the server takes."},
    415: {"model": ErrorResponse, "description": "The body is encoded, by gzip for instance."},
    422: {"model": ErrorResponse, "description": "The request is malformed or passes a limit."},
    429: {"model": ErrorResponse, "description": "The key's rate is used up; Retry-After says for how long."},
    503: {"model": ErrorResponse, "description": "Too much waits, or time has run out; Retry-After says for how long."},
}


class Backend(Protocol):
    """What the routes need."""

    fingerprint: str

    async def embed(self, questions: Sequence[Question]) -> list[Asked]:
        """Texts and sequences as vectors, of what the model sees of them."""

    async def search(self, questions: Sequence[Question], options: Options) -> list[Answer]:
        """The answer to each question."""

    async def describe_index(self) -> IndexInfo:
        """What the index holds."""


def make_api(backend: Backend, limits: Limits) -> FastAPI:
    """The HTTP application."""
    app = FastAPI(
        title="ProtCLIP",
        version=__version__,
        description="Embeddings of proteins and of texts about them in one space, and search in an index of them.",
    )
    install_error_handlers(app)

    @app.post("/v1/embed", responses=ERRORS)
    async def embed(request: EmbedRequest) -> EmbedResponse:
        """Embed proteins or texts."""
        asked = await backend.embed(request.questions(limits))
        embeddings = [one.vector.tolist() for one in asked]
        return EmbedResponse(model=backend.fingerprint, dimension=len(embeddings[0]), embeddings=embeddings)

    @app.post("/v1/search", response_model=Answer, responses=ERRORS)
    async def search(request: SearchRequest) -> Response:
        """Find what lies nearest to a text, a sequence, an accession or an embedding."""
        (answer,) = await backend.search([request.question(limits)], request.options(limits))
        return Response(json.dumps(asdict(answer)), media_type="application/json")

    @app.get("/health")
    async def health() -> Health:
        """Whether the model and the index are loaded and answer."""
        return Health(model=backend.fingerprint, index=await backend.describe_index(), version=__version__)

    return app
