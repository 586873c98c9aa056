"""A gateway: it speaks HTTP, asks encoders and shards, and makes one answer of what they found.

question ─→ an encoder ──→ vector ──→ every shard ──→ the best of all
    └─────→ every shard: the vectors of accessions, the question's own rows
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from protclip import files
from protclip.errors import NotFoundError
from protclip.hits import NONE_OWN, check_own, make_answers, num_wanted
from protclip.index.filters import Filter
from protclip.index.index import merge, rows_of
from protclip.index.manifest import IndexManifest
from protclip.inputs import LongPolicy
from protclip.manifest import FILE_NAME
from protclip.questions import Answer, Asked, Coverage, Explanation, Options, PartialAnswer, Protein, Question
from protclip.retrieval import fitted
from serve.answers import ModelInfo, NamedIndex, describe_index
from serve.api import make_api
from serve.encoder import no_sequences
from serve.errors import UnavailableError
from serve.guard import guard
from serve.keys import NO_KEYS
from serve.loopback import keep_to_loopback
from serve.metrics import CountRequests, Load, Metrics
from serve.parts import Part, together
from serve.settings import DEFAULT_INDEX, AppArgs
from serve.shard import Found, How, Known, LookUp, Search, shard_holds


class Gateway:
    """The routes over encoders and shards."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        args: AppArgs,
        index: str,
        manifest: IndexManifest,
        subindexes: Sequence[range],
        encoder: DeploymentHandle[Any],
        *shards: DeploymentHandle[Any],
    ) -> None:
        """Wait for an encoder.

        Args:
            args: the settings.
            index: path or URL.
            manifest: of the whole index.
            subindexes: of each shard.
            encoder: the encoders.
            shards: each of the shards.
        """
        keep_to_loopback()
        self.args = args
        self.fingerprint = manifest.model_fingerprint
        self.metrics = Metrics()
        self._manifest = manifest
        self._written = files.modified(files.join(index, FILE_NAME))
        self._rows = [sum(manifest.segments[number].live for number in numbers) for numbers in subindexes]
        self._encoder = Part("the encoder", encoder, holds=self.fingerprint)
        self._shards = [
            Part(f"shard {number}", handle, holds=shard_holds(manifest.fingerprint, its))
            for number, (handle, its) in enumerate(zip(shards, subindexes, strict=True))
        ]
        self._model: ModelInfo = await self._encoder.call("describe")
        self._watches = [asyncio.create_task(part.watch()) for part in (self._encoder, *self._shards)]
        self.metrics.watch_replicas("encoder", partial(_num_up, self._encoder))
        for number, shard in enumerate(self._shards):
            self.metrics.watch_replicas(f"shard-{number}", partial(_num_up, shard))

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray Serve calls it by this name, after __init__
        args = self.args
        api = make_api(self, args.limits, stuck_after_s=args.stuck_after_s, secured=args.keys != NO_KEYS)
        return CountRequests(guard(api, args), self.metrics)

    async def embed(self, questions: Sequence[Question], *, long: LongPolicy = "truncate") -> list[Asked]:
        """As ``Encoder.embed``."""
        asked: list[Asked] = await self._encoder.call("encode", questions, long)
        return asked

    async def search(
        self,
        questions: Sequence[Question],
        options: Options,
        *,
        index: str = DEFAULT_INDEX,
        allow_partial: bool = False,
    ) -> list[Answer]:
        """The answer to each question.

        Raises:
            NotFoundError: for an accession that the index does not hold, or another index.
            UnavailableError: where no encoder can be reached, or no shard, or one and partial answers are not allowed.
        """
        _check_index(index)
        embedded, known = await together(
            self._embed([q for q in questions if q.text is not None or q.sequence is not None]),
            self._look_up(questions, options),
        )
        missing = {number for number, one in enumerate(known) if one is None}
        self._check_missing(missing, allow_partial)
        vectors = self._vectors_of_accessions(questions, known, missing)
        if options.exclude_self:
            for question in questions:
                check_own(question)
        own = _own_rows(questions, known)
        left = iter(embedded)
        asked = [
            Asked(question=q, vector=vector, kind=self._manifest.content)
            if vector is not None
            else Asked(question=q, vector=q.vector, kind=q.kind)
            if q.vector is not None
            else fitted(next(left), self._manifest.dimension)
            for q, vector in zip(questions, vectors, strict=True)
        ]
        how = How(
            k=num_wanted(options, own),
            where=options.where.text if isinstance(options.where, Filter) else None,
            exact=options.exact,
            columns=None if options.columns is None else tuple(options.columns),
            map=options.map,
        )
        search = Search(vectors_ND=np.stack([one.vector for one in asked]), how=how)
        found: list[Found | None] = await self._ask_shards("search", search)
        missing |= {number for number, one in enumerate(found) if one is None}
        self._check_missing(missing, allow_partial)
        present = [one for number, one in enumerate(found) if one is not None and number not in missing]
        whole = self._merged(asked, options, how.k, own, present)
        if not missing:
            return whole
        coverage = Coverage(
            missing_shards=sorted(missing),
            searched_rows=sum(rows for number, rows in enumerate(self._rows) if number not in missing),
            total_rows=self._manifest.count,
        )
        names = [field.name for field in fields(Answer)]
        return [PartialAnswer(**{name: getattr(one, name) for name in names}, partial=coverage) for one in whole]

    async def explain(
        self,
        text: str,
        *,
        sequence: str | None,
        accession: str | None,
        index: str = DEFAULT_INDEX,
        window: int | None,
        stride: int,
    ) -> Explanation:
        """As ``Replica.explain``; raises UnavailableError too, where the index is asked and a shard is missing."""
        sequence_hash = None
        if sequence is None:
            assert accession is not None
            if self.args.sequences is None:
                raise no_sequences(accession)
            sequence_hash = (await self._row(accession, index))["sequence_hash"]
        arguments = {"text": text, "sequence": sequence, "accession": accession, "sequence_hash": sequence_hash}
        explanation: Explanation = await self._encoder.call(
            "explain", {**arguments, "window": window, "stride": stride}
        )
        return explanation

    async def protein(self, accession: str, *, index: str = DEFAULT_INDEX) -> Protein:
        """What the index knows of a protein, and its sequence.

        Raises:
            NotFoundError: if it does not hold it, or for another index.
            UnavailableError: if that is not known, for a shard is missing.
        """
        row = await self._row(accession, index)
        sequence_hash = row.pop("sequence_hash")
        row["sequence"] = None
        if self.args.sequences is not None:
            row["sequence"] = await self._encoder.call("sequence", accession, sequence_hash)
        return cast(Protein, row)

    def describe_model(self) -> ModelInfo:
        """The model."""
        return self._model

    def describe_indexes(self) -> list[NamedIndex]:
        """The index."""
        return [describe_index(DEFAULT_INDEX, self._manifest, self._written, num_shards=len(self._shards))]

    def index_dimension(self, index: str) -> int:
        """Width of the index's vectors.

        Raises:
            NotFoundError: for another index.
        """
        _check_index(index)
        return self._manifest.dimension

    def refused(self) -> str | None:
        """Nothing: another index is another deployment."""
        return None

    def load(self) -> Load:
        """What there is to do in encoders and shards at the latest look."""
        loads = [load for part in (self._encoder, *self._shards) for load in part.loads]
        missing_shards = tuple(number for number, shard in enumerate(self._shards) if shard.num_up == 0)
        missing = None
        if self._encoder.num_up == 0:
            missing = self._encoder.name
        elif len(missing_shards) == len(self._shards):
            missing = "any shard"
        return Load(
            num_items=sum(load.num_items for load in loads),
            num_tokens=sum(load.num_tokens for load in self._encoder.loads),
            num_explanations=sum(load.num_explanations for load in self._encoder.loads),
            # Where one replica of a part is stuck, another answers.
            batch_s=max(
                (min(load.batch_s for load in part.loads) for part in (self._encoder, *self._shards) if part.loads),
                default=0.0,
            ),
            missing=missing,
            missing_shards=missing_shards,
        )

    async def _row(self, accession: str, index: str) -> dict[str, Any]:
        _check_index(index)
        found: list[list[dict[str, Any]] | None] = await self._ask_shards("row", accession)
        for rows in found:
            if rows:
                return rows[0]
        self._check_missing({number for number, rows in enumerate(found) if rows is None}, allow_partial=False)
        raise NotFoundError(f"accession {accession!r:.80}: the index does not hold it.")

    async def _embed(self, questions: Sequence[Question]) -> list[Any]:
        return list(await self.embed(questions)) if questions else []

    async def _look_up(self, questions: Sequence[Question], options: Options) -> list[Any]:
        if options.exclude_self or any(question.accession is not None for question in questions):
            return await self._ask_shards("look_up", LookUp(questions=questions, exclude_self=options.exclude_self))
        return []

    async def _ask_shards(self, method: str, *args: Any) -> list[Any]:
        """What each shard answers; None of those that cannot be reached."""

        async def ask(shard: Part) -> Any:
            try:
                return await shard.call(method, *args)
            except UnavailableError:
                return None

        return await together(*map(ask, self._shards))

    def _check_missing(self, missing: set[int], allow_partial: bool) -> None:
        if missing and (not allow_partial or len(missing) == len(self._shards)):
            names = ", ".join(map(str, sorted(missing)))
            raise UnavailableError(
                f"of the shards 0 to {len(self._shards) - 1} of the index, these cannot be reached: {names}; ask again "
                "later, or take answers of the others with 'allow_partial': true."
            )

    def _vectors_of_accessions(
        self, questions: Sequence[Question], known: Sequence[Known | None], missing: set[int]
    ) -> list[NDArray[np.float32] | None]:
        vectors: list[NDArray[np.float32] | None] = [None] * len(questions)
        for one in known:
            if one is not None:
                vectors = [new if new is not None else old for old, new in zip(vectors, one.vectors, strict=True)]
        for question, vector in zip(questions, vectors, strict=True):
            if question.accession is not None and vector is None:
                self._check_missing(missing, allow_partial=False)
                raise NotFoundError(
                    f"accession {question.accession!r:.80}: the index does not hold it; ask by its sequence."
                )
        return vectors

    def _merged(
        self,
        asked: Sequence[Asked],
        options: Options,
        k: int,
        own: Sequence[NDArray[np.int64]],
        found: Sequence[Found],
    ) -> list[Answer]:
        """The answers by what the shards found."""
        gathered = Gathered(found)
        scores_NK, places_NK = merge(
            [(one.scores_NK, places) for one, places in zip(found, gathered.places, strict=True)],
            k,
            lambda places: gathered.table["accession"].take(pa.array(places)).to_pylist(),
        )
        own_places = [np.flatnonzero(np.isin(gathered.rows_M, mine)) if len(mine) else mine for mine in own]
        return make_answers(self._manifest, asked, options, own_places, scores_NK, places_NK, gathered)


class Gathered:
    """All rows that the shards found, M in all, each at its place."""

    def __init__(self, found: Sequence[Found]) -> None:
        self.table = pa.concat_tables([one.table for one in found])
        self.rows_M = np.concatenate([one.rows_NK.ravel() for one in found])
        starts = np.cumsum([0, *(one.rows_NK.size for one in found)])
        self.places = [
            start + np.arange(one.rows_NK.size).reshape(one.rows_NK.shape)
            for start, one in zip(starts, found, strict=False)
        ]
        """Of what each shard found, in the shape of its scores."""
        self._vectors = [one.vectors_MD for one in found if one.vectors_MD is not None]

    def rows(self, places: NDArray[np.int64], columns: Sequence[str] | None = None) -> list[Any]:
        """What is shown of the rows at some places: the columns that the shards were asked for."""
        del columns
        return rows_of(self.table.take(pa.array(places)))

    def vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of the rows at some places, which the shards were asked for."""
        return np.concatenate(self._vectors)[places]


def _check_index(name: str) -> None:
    if name != DEFAULT_INDEX:
        raise NotFoundError(f"index {name!r:.80}: is not served; there are {DEFAULT_INDEX!r}.")


def _num_up(part: Part) -> int:
    return part.num_up or 0


def _own_rows(questions: Sequence[Question], known: Sequence[Known | None]) -> list[NDArray[np.int64]]:
    """Rows of the whole index that are each question itself."""
    owns = [one.own for one in known if one is not None and one.own]
    return [np.concatenate(mine) for mine in zip(*owns, strict=True)] if owns else NONE_OWN * len(questions)
