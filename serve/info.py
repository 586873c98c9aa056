"""The routes that say what is there and how it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from pydantic_core import to_json

from protclip.questions import Protein
from protclip.version import __version__
from serve.answers import (
    Alive,
    Health,
    IndexesResponse,
    IndexInfo,
    Info,
    ModelItem,
    ModelsResponse,
    PartlyReady,
    Policies,
)
from serve.backend import Backend
from serve.errors import NotReadyError
from serve.openapi import OF_ANY, REQUEST_ID, responses
from serve.requests import MAX_NAME_LENGTH, PROTEIN_MODEL, TEXT_MODEL
from serve.settings import DEFAULT_INDEX, Limits

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])


def add_info_routes(app: FastAPI, backend: Backend, limits: Limits, stuck_after_s: float) -> None:
    """The routes that say what is there and how it is."""

    def get(path: str, answer: Any, *statuses: int) -> Callable[[Endpoint], Endpoint]:
        return app.get(path, response_model=answer, responses=responses(*statuses))

    @get("/v1/models", ModelsResponse, *OF_ANY)
    async def models() -> Response:
        """The models that /v1/embeddings takes, in OpenAI's form."""
        return as_json(
            ModelsResponse(
                data=[ModelItem(id=name, created=0, owned_by="protclip") for name in (PROTEIN_MODEL, TEXT_MODEL)]
            )
        )

    @get("/v1/proteins/{accession}", Protein, 404, 422, *OF_ANY)
    async def protein(
        accession: Annotated[str, Path(max_length=MAX_NAME_LENGTH)],
        index: Annotated[str, Query(max_length=MAX_NAME_LENGTH)] = DEFAULT_INDEX,
    ) -> Response:
        """What an index knows of a protein, and its sequence where the server has it."""
        return as_json(await backend.protein(accession, index=index))

    @get("/v1/indexes", IndexesResponse, *OF_ANY)
    async def indexes() -> Response:
        """The indexes that answer."""
        return as_json(IndexesResponse(indexes=backend.describe_indexes(), refused=backend.refused()))

    @get("/info", Info, *OF_ANY)
    async def info() -> Response:
        """Model, indexes, limits and policies."""
        indexes = backend.describe_indexes()
        return as_json(
            Info(
                version=__version__,
                model=backend.describe_model(),
                index=indexes[0],
                indexes=[one.name for one in indexes],
                limits=limits,
                policies=Policies(),
            )
        )

    @get("/health", Health)
    async def health() -> Response:
        """Whether the model and the indexes are loaded."""
        indexes = backend.describe_indexes()
        index = IndexInfo.model_validate(indexes[0], from_attributes=True)
        names = [one.name for one in indexes]
        return as_json(Health(model=backend.fingerprint, index=index, indexes=names, version=__version__))

    @get("/health/live", Alive)
    async def live() -> Response:
        """Whether the replica's event loop answers."""
        return as_json(Alive())

    @get("/health/ready", PartlyReady | Alive, 503)
    async def ready() -> Response:
        """Whether a request would be answered: not where a batch has been computed for too long."""
        load = backend.load()
        if load.missing:
            raise NotReadyError(f"there is no replica of {load.missing}.")
        if load.batch_s > stuck_after_s:
            raise NotReadyError(
                f"a batch has been computed for {load.batch_s:.0f} s, and {stuck_after_s:g} s are allowed."
            )
        return as_json(PartlyReady(missing_shards=list(load.missing_shards)) if load.missing_shards else Alive())

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            **responses(*OF_ANY),
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "headers": REQUEST_ID},
        },
    )
    async def metrics() -> Response:
        """The numbers of the replica that answers, in Prometheus's form."""
        return Response(backend.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def as_json(content: BaseModel | Protein) -> Response:
    """An answer."""
    return Response(to_json(content), media_type="application/json")
