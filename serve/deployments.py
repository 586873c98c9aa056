"""The processes behind the routes: one that speaks HTTP, one for each encoder, one for the index.

A request's items join those of other requests in one batch. What is wrong with an item is found before it joins, so
that a bad request fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from protclip.errors import CheckpointError, DataError
from protclip.index.embeddings import Dtype
from serve.api import make_api
from serve.errors import OverloadedError, UnavailableError
from serve.loopback import keep_to_loopback
from serve.schemas import IndexInfo
from serve.settings import AppArgs

HEALTH_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong with a request's items. A value, since an exception would be logged as the server's failure."""

    message: str


class Encoder:
    """One half of the model, which embeds the items of all waiting requests together, in the dtype of the index."""

    def __init__(self, args: AppArgs, fingerprint: str, dtype: Dtype) -> None:
        from protclip.embedding import ProtCLIP

        keep_to_loopback()
        self.model = ProtCLIP.from_pretrained(args.checkpoint, dtype=dtype)
        if self.model.fingerprint != fingerprint:
            raise CheckpointError(
                f"{args.checkpoint}: is the model {self.model.fingerprint}, and was {fingerprint} when the application "
                "was deployed; deploy again."
            )
        self._embed_one.set_max_batch_size(args.max_batch_size)  # type: ignore[attr-defined]
        self._embed_one.set_batch_wait_timeout_s(args.batch_wait_s)  # type: ignore[attr-defined]

    async def embed(self, items: list[str]) -> NDArray[np.float32] | Refusal:
        """Embeddings (n, dimension) of a request's items."""
        try:
            self.check_items(items)
        except DataError as error:
            return Refusal(str(error))
        return np.stack(await asyncio.gather(*(self._embed_one(item) for item in items)))

    async def ping(self) -> None:
        """Answer, to show that the model is loaded."""

    # No batch_size_fn: an exception in it hangs all later requests (ray#66140).
    @serve.batch
    async def _embed_one(self, items: list[str]) -> list[NDArray[np.float32]]:
        return list(await asyncio.to_thread(self.embed_items, items))

    def check_items(self, items: list[str]) -> None:
        """Raise DataError for an item that cannot be embedded."""
        raise NotImplementedError

    def embed_items(self, items: list[str]) -> NDArray[np.float32]:
        """Embeddings of items of any number of requests."""
        raise NotImplementedError


class ProteinEncoder(Encoder):
    """Embeds sequences."""

    def check_items(self, items: list[str]) -> None:
        self.model.protein_tokenizer.encode_checked(items)

    def embed_items(self, items: list[str]) -> NDArray[np.float32]:
        return self.model.embed_proteins(items)


class TextEncoder(Encoder):
    """Embeds texts."""

    def check_items(self, items: list[str]) -> None:
        self.model.text_tokenizer.encode_checked(items)

    def embed_items(self, items: list[str]) -> NDArray[np.float32]:
        return self.model.embed_texts(items)


class IndexShard:
    """Searches a loaded index."""

    def __init__(self, args: AppArgs, fingerprint: str) -> None:
        from protclip.index.index import Index

        keep_to_loopback()
        self.index = Index.load(args.index, expect_fingerprint=fingerprint)

    async def search(self, query: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """Hits of one query (dimension,)."""
        return await asyncio.to_thread(self.index.hits, query, k)

    async def describe(self) -> IndexInfo:
        """What the index holds."""
        manifest = self.index.manifest
        return IndexInfo(
            content=manifest.content,
            count=manifest.count,
            dimension=manifest.dimension,
            dtype=manifest.dtype,
            recall_at_10=manifest.recall_at_10,
        )


class Api:
    """Speaks HTTP; the work is done by the others."""

    def __init__(
        self,
        args: AppArgs,
        fingerprint: str,
        proteins: DeploymentHandle[Any],
        texts: DeploymentHandle[Any],
        index: DeploymentHandle[Any],
    ) -> None:
        keep_to_loopback()
        self.args = args
        self.fingerprint = fingerprint
        self._proteins = proteins
        self._texts = texts
        self._index = index
        self._index_info: IndexInfo | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray Serve calls it by this name, after __init__
        return make_api(self, self.args.limits)

    async def embed_proteins(self, sequences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of sequences."""
        return _accepted(await _call(self._proteins.embed, list(sequences)))

    async def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of texts."""
        return _accepted(await _call(self._texts.embed, list(texts)))

    async def search(self, query: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """Hits of one query."""
        hits: list[dict[str, Any]] = await _call(self._index.search, query, k)
        return hits

    async def describe_index(self) -> IndexInfo:
        """What the index holds; asked for once, since an index never changes."""
        if self._index_info is None:
            self._index_info = await _call(self._index.describe)
        return self._index_info

    async def check(self) -> None:
        """Raise UnavailableError where a part does not answer in time."""
        calls = (_call(self._proteins.ping), _call(self._texts.ping), _call(self._index.describe))
        try:
            await asyncio.wait_for(asyncio.gather(*calls), HEALTH_TIMEOUT_S)
        except TimeoutError as error:
            raise UnavailableError(f"the model or the index did not answer in {HEALTH_TIMEOUT_S:.0f} s.") from error


async def _call(method: Any, *args: Any) -> Any:
    try:
        return await method.remote(*args)
    except BackPressureError as error:
        raise OverloadedError("too many requests are waiting; ask again in a moment.") from error
    except (DeploymentUnavailableError, RayActorError) as error:
        raise UnavailableError("a part of the server is being restarted; ask again in a moment.") from error


def _accepted(result: NDArray[np.float32] | Refusal) -> NDArray[np.float32]:
    if isinstance(result, Refusal):
        raise DataError(result.message)
    return result
