"""The server as it was before one replica held all: Api → encoder → index, each a process of its own (decision 063).

Kept for benchmarks/serve_search.py to compare with; search by text alone, without the checks of bodies, which cost it
more.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the route.

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from protclip.index.index import Index
from protclip.questions import Answer, Asked, Options, Question
from protclip.retrieval import Retriever

MAX_BATCH_SIZE, BATCH_WAIT_S, MAX_QUEUED_REQUESTS, API_REQUESTS = 64, 0.005, 200, 1_000


class Body(BaseModel):
    """Of a search, and of the route that does nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    k: int = 10


class Encoder:
    """One half of the model."""

    def __init__(self, checkpoint: str) -> None:
        self.retriever = Retriever.load(checkpoint=checkpoint)

    async def embed(self, questions: list[Question]) -> list[Asked]:
        """A request's questions as vectors."""
        return await asyncio.gather(*(self._embed_one(question) for question in questions))

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _embed_one(self, questions: list[Question]) -> list[Asked]:
        return await asyncio.to_thread(self.retriever.embed, questions)


class IndexShard:
    """Searches a loaded index."""

    def __init__(self, index: str) -> None:
        self.retriever = Retriever(None, Index.load(index))

    async def search(self, asked: Asked, options: Options) -> Answer:
        """The answer."""
        return (await asyncio.to_thread(self.retriever.find, [asked], options))[0]


class Api:
    """Speaks HTTP; the work is done by the others."""

    def __init__(self, texts: DeploymentHandle[Any], index: DeploymentHandle[Any]) -> None:
        self._texts = texts
        self._index = index

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()

        @app.post("/search")
        async def search(body: Body) -> Answer:
            (asked,) = await self._texts.embed.remote([Question(text=body.text)])
            answer: Answer = await self._index.search.remote(asked, Options(k=body.k))
            return answer

        return app


def build_old_chain(index: str, checkpoint: str) -> Application:
    """The four deployments, at the path /search."""
    deploy = serve.deployment(
        ray_actor_options={"num_cpus": 0.1},
        max_queued_requests=MAX_QUEUED_REQUESTS,
        max_ongoing_requests=2 * MAX_BATCH_SIZE,
    )
    api = deploy(serve.ingress()(Api)).options(max_queued_requests=-1, max_ongoing_requests=API_REQUESTS)
    # The encoder of proteins waits beside the others, as it did.
    serve.run(deploy(Encoder).options(name="ProteinEncoder").bind(checkpoint), name="proteins", route_prefix=None)
    return api.bind(deploy(Encoder).options(name="TextEncoder").bind(checkpoint), deploy(IndexShard).bind(index))
