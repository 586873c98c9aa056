"""The routes, over any backend that embeds and searches. Nothing here knows Ray."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Response
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protclip.errors import PayloadTooLargeError
from protclip.questions import Answer, Asked, Options, Question
from protclip.version import __version__
from serve.errors import envelope, install_error_handlers, status_of
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
    413: {"model": ErrorResponse, "description": "The body is larger than the server takes."},
    404: {"model": ErrorResponse, "description": "What the request names is not in the index."},
    422: {"model": ErrorResponse, "description": "The request is malformed or passes a limit."},
    503: {"model": ErrorResponse, "description": "Too much waits; try later."},
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
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)

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
        return Response(to_json(answer), media_type="application/json")

    @app.get("/health")
    async def health() -> Health:
        """Whether the model and the index are loaded and answer."""
        return Health(model=backend.fingerprint, index=await backend.describe_index(), version=__version__)

    return app


class BodyLimit:
    """Answer 413 to a body above the limit, whether or not it announces its length."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.max_bytes:
            await self._refuse(scope, receive, send)
            return
        # Read here, not in the route: FastAPI would turn an error raised while it reads into a 400 of its own.
        messages: MutableSequence[Message] = []
        size = 0
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
            if messages[-1]["type"] == "http.disconnect":
                return
            size += len(messages[-1].get("body", b""))
            if size > self.max_bytes:
                await self._refuse(scope, receive, send)
                return
        messages.reverse()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = PayloadTooLargeError(f"body: is larger than {self.max_bytes} bytes; split the request.")
        await envelope(status_of(error), type(error).__name__, str(error))(scope, receive, send)
