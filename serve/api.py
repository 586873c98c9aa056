"""The routes, over any backend that embeds and searches. Nothing here knows Ray.

FastAPI makes the schema and finds the route; bodies are read and answers written by pydantic's own parser and writer,
several times as fast (decision 070).
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic_core import to_json
from starlette._utils import get_route_path
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from protclip.dimensions import cut_to
from protclip.questions import Answer, PartialAnswer
from protclip.retrieval import pair_cosines, softmax
from protclip.version import __version__
from serve.answers import (
    Answers,
    ClassifyResponse,
    EmbeddingsResponse,
    EmbedResponse,
    ExplainResponse,
    ScoreResponse,
)
from serve.backend import Backend
from serve.errors import install_error_handlers
from serve.forms import AForm, Form, parse, with_limits
from serve.info import add_info_routes
from serve.openapi import OF_ANY, OF_BODY, body_of, build_schema, responses
from serve.page import add_page
from serve.requests import (
    ClassifyRequest,
    EmbeddingsRequest,
    EmbedRequest,
    ExplainRequest,
    ScoreRequest,
    SearchRequest,
)
from serve.settings import Limits


def make_api(backend: Backend, limits: Limits, *, stuck_after_s: float, secured: bool = False) -> Api:
    """The HTTP application.

    Args:
        backend: what answers.
        limits: of requests.
        stuck_after_s: a replica whose batch takes longer is not ready.
        secured: whether a key is asked for, for the schema.
    """
    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        static_url="/docs/assets",
        title="ProtCLIP",
        version=__version__,
        description="Embeddings of proteins and of texts about them in one space, and search in an index of them.",
        swagger_ui_parameters={"validatorUrl": None},  # else the page asks a server of Swagger's
    )
    install_error_handlers(app)
    backend.metrics.watch(backend.load, backend.describe_indexes)
    questions = add_model_routes(app, backend, limits)
    add_info_routes(app, backend, limits, stuck_after_s)
    add_page(app)

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build_schema(app, [one.form for one in questions], secured=secured)
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]
    return Api(app, questions)


class Api:
    """The routes that the model answers, at once; all else, and what describes them, by FastAPI.

    FastAPI's way to a route takes longer than the route does (decision 070). Errors are left to who is outside.
    """

    def __init__(self, app: FastAPI, questions: Sequence[QuestionRoute]) -> None:
        self.app = app
        self.questions = {one.path: one for one in questions}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            RequestError, OverloadedError: of a route that the model answers.
        """
        question = None
        if scope["type"] == "http" and scope["method"] == "POST":
            question = self.questions.get(get_route_path(scope))
        if question is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = question
        answer = await question.answer(await read_body(receive))
        length = str(len(answer)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def read_body(receive: Receive) -> bytes:
    """A request's body, which the guard has read and gives whole.

    Raises:
        ClientDisconnect: if the client has gone.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionRoute:
    """A route that the model answers."""

    path: str
    form: type[Form]
    """Of its body."""
    answer: Callable[[bytes], Awaitable[bytes]]
    """To a body, both JSON; raises RequestError or OverloadedError."""


def add_model_routes(app: FastAPI, backend: Backend, limits: Limits) -> list[QuestionRoute]:
    """The routes that the model answers; FastAPI has them for their description."""
    questions: list[QuestionRoute] = []

    def post(
        path: str, form: type[AForm], answer: Any
    ) -> Callable[[Callable[[AForm], Awaitable[bytes]]], Callable[[AForm], Awaitable[bytes]]]:
        form = with_limits(limits, form)

        def add(endpoint: Callable[[AForm], Awaitable[bytes]]) -> Callable[[AForm], Awaitable[bytes]]:
            def answer_body(body: bytes) -> Awaitable[bytes]:
                return endpoint(parse(form, body))

            async def described() -> None:
                """Never called: ``Api`` is before it."""

            questions.append(QuestionRoute(path=path, form=form, answer=answer_body))
            app.add_api_route(
                path,
                described,
                methods=["POST"],
                name=endpoint.__name__,
                description=endpoint.__doc__,
                response_model=answer,
                responses=responses(404, *OF_BODY, *OF_ANY),
                openapi_extra=body_of(form),
            )
            return endpoint

        return add

    @post("/v1/search", SearchRequest, PartialAnswer | Answer | Answers)
    async def search(request: SearchRequest) -> bytes:
        """Find what lies nearest to a text, a sequence, an accession or an embedding, or to each of several."""
        dimension = backend.index_dimension(request.index)
        asked, options = request.questions(limits, dimension), request.options(limits)
        found = await backend.search(asked, options, index=request.index, allow_partial=request.allow_partial)
        return to_json({"answers": found} if request.queries is not None else found[0])

    @post("/v1/embed", EmbedRequest, EmbedResponse)
    async def embed(request: EmbedRequest) -> bytes:
        """Embed proteins or texts."""
        dimension = backend.describe_model().dimension
        asked = await backend.embed(request.questions(limits, dimension), long=request.long)
        vectors = [cut_to(one.vector, request.dimensions) for one in asked]
        return to_json(
            {
                "model": backend.fingerprint,
                "dimension": len(vectors[0]),
                "embeddings": [encode_vector(vector, request.encoding_format) for vector in vectors],
                "truncated": [one.truncated for one in asked],
            }
        )

    @post("/v1/embeddings", EmbeddingsRequest, EmbeddingsResponse)
    async def embeddings(request: EmbeddingsRequest) -> bytes:
        """Embed proteins or texts, in the form of OpenAI's API: its clients work with this server as their base URL."""
        dimension = backend.describe_model().dimension
        asked = await backend.embed(request.questions(limits, dimension))
        num_tokens = sum(one.num_tokens for one in asked)
        return to_json(
            {
                "object": "list",
                "model": request.model,
                "data": [
                    {
                        "object": "embedding",
                        "index": i,
                        "embedding": encode_vector(cut_to(one.vector, request.dimensions), request.encoding_format),
                        "truncated": one.truncated,
                    }
                    for i, one in enumerate(asked)
                ],
                "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
            }
        )

    @post("/v1/score", ScoreRequest, ScoreResponse)
    async def score(request: ScoreRequest) -> bytes:
        """How well each sequence fits the text at the same place: their cosine."""
        protein_ND, text_ND = await sides(request)
        return to_json({"model": backend.fingerprint, "scores": pair_cosines(protein_ND, text_ND).tolist()})

    @post("/v1/classify", ClassifyRequest, ClassifyResponse)
    async def classify(request: ClassifyRequest) -> bytes:
        """How likely each of the texts is that of each sequence: the softmax over the texts of scaled cosines."""
        protein_ND, text_TD = await sides(request)
        logits_NT = backend.describe_model().scale * (protein_ND @ text_TD.T)
        return to_json({"model": backend.fingerprint, "probabilities": softmax(logits_NT).tolist()})

    @post("/v1/explain", ExplainRequest, ExplainResponse)
    async def explain(request: ExplainRequest) -> bytes:
        """Which residues of a protein make it match a text, by occlusion and PDA's segment."""
        request.check(limits)
        found = await backend.explain(
            request.text,
            sequence=request.sequence,
            accession=request.accession,
            index=request.index,
            window=request.window,
            stride=request.stride,
        )
        return to_json({**asdict(found), "stride_grew": found.stride > request.stride})

    async def sides(request: ScoreRequest | ClassifyRequest) -> tuple[Any, Any]:
        asked = await backend.embed(request.questions(limits))
        vectors = np.stack([one.vector for one in asked])
        return vectors[: len(request.sequences)], vectors[len(request.sequences) :]

    return questions


def encode_vector(vector: np.ndarray, encoding_format: str) -> list[float] | str:
    """A vector as numbers, or as base64 of little-endian float32."""
    if encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
