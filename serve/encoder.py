"""The model behind its queues: questions wait together, and are embedded together.

long     questions of many letters are tokenised; others are when they come
model    what was tokenised is embedded
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from protclip.checkpoints import checkpoint_folder
from protclip.data.windows import window_starts, window_weights
from protclip.errors import CheckpointError, NotFoundError, RequestError
from protclip.inputs import Dtype, LongPolicy
from protclip.model.quality import quality_note, quality_of
from protclip.model.record import read_checkpoint_record
from protclip.questions import Answer, Asked, Explanation, Options, Prepared, Question
from protclip.retrieval import Retriever
from protclip.units import num_cores
from serve.answers import ModelInfo, ModelQuality
from serve.batching import Batcher
from serve.calls import Call, answer
from serve.explaining import Explainer
from serve.loopback import keep_to_loopback
from serve.metrics import Load, Metrics
from serve.queues import SWITCH_S, deadline, each_alone_on_error
from serve.sequences import Sequences, load_sequences
from serve.settings import AppArgs

if TYPE_CHECKING:
    from protclip.trained_model import ProtCLIP

SHORT_LETTERS = 5_000
"""A request's questions of fewer letters are tokenised at once."""
LETTERS_AT_ONCE = 50_000
"""Of long questions that are tokenised together."""
ITEM_TOKENS = 16
"""What an item costs beside its tokens: an encoder takes about so many more in its time, and memory is held for it."""
HITS_OF_TOKEN = 10
"""So many answers cost as much as a token."""
LITTLE_S = 0.01
"""Batches that take a processor no longer are computed on the event loop."""
WORK_OF_ONE_THREAD = 5e8
"""Weights times tokens of a batch that one thread computes: some 15 ms."""


class Search(NamedTuple):
    """How a question is answered, and from what: a request keeps the index with which it began."""

    retriever: Retriever
    options: Options


class Encoder:
    """The model. A replica that has indexes too searches in them with what it has embedded."""

    def __init__(self, args: AppArgs, fingerprint: str) -> None:
        """Without the model; ``_load_model`` brings it."""
        self.args = args
        self.fingerprint = fingerprint
        self.metrics = Metrics()

    async def embed(self, questions: Sequence[Question], *, long: LongPolicy = "truncate") -> list[Asked]:
        """Texts, or sequences, as vectors.

        Raises:
            RequestError: for one that is longer than the model sees, where that is an error.
        """
        if long == "window-mean":
            return await self._embed_windows(questions)
        prepared = await self._prepare(questions)
        for one in prepared:
            if long == "error" and one.truncated:
                raise RequestError(
                    f"{one.question.name}: is longer than the model sees, {self._model.max_protein_tokens - 2} "
                    f"residues of a protein and {self._model.max_text_tokens} tokens of a text; shorten it, or choose "
                    "another policy for 'long'."
                )
        return cast(list[Asked], await self._compute(prepared, None))

    async def explain_protein(
        self,
        text: str,
        *,
        sequence: str | None,
        accession: str | None,
        sequence_hash: int | None,
        window: int | None,
        stride: int,
    ) -> Explanation:
        """What each residue has to do with a text, by the sequence or by the accession and the hash of its sequence.

        Raises:
            RequestError: for a window that cannot be, or for an accession where there are no sequences.
            NotFoundError: for an accession that the sequences lack, or have of another release.
            OverloadedError: where too much is under way.
        """
        if sequence is None:
            assert accession is not None
            sequence = self.check_sequences(accession).find(accession, sequence_hash)
        return await self._explainer.explain(
            sequence, text, accession=accession, window=window, stride=stride, deadline=deadline()
        )

    def check_sequences(self, accession: str | None) -> Sequences:
        """The sequences of the index's proteins.

        Raises:
            RequestError: where there are none, for an accession that needs them.
        """
        if self._sequences is None:
            raise no_sequences(accession)
        return self._sequences

    def find_sequence(self, accession: str, sequence_hash: int | None) -> str | None:
        """The sequence of an accession, where it is known."""
        with contextlib.suppress(NotFoundError, RequestError):
            return self.check_sequences(accession).find(accession, sequence_hash)
        return None

    def describe_model(self) -> ModelInfo:
        """The model."""
        return self._model

    def load(self) -> Load:
        """What there is to do at this moment."""
        items, tokens = self._embeddings.waiting()
        oldest_s = max(queue.running_s() for queue in self._queues())
        return Load(
            num_items=items,
            num_tokens=tokens,
            num_explanations=self._explainer.num_under_way,
            batch_s=oldest_s,
        )

    def _queues(self) -> tuple[Batcher[Any, Any] | Explainer, ...]:
        return self._long, self._embeddings, self._explainer

    def _load_model(self, dtype: Dtype) -> ProtCLIP:
        """The model, with its queues; in a number format unless the settings give another.

        Raises:
            CheckpointError: if it is damaged, or another than when the application was deployed.
        """
        from protclip.model.inference import waits_for_nothing
        from protclip.trained_model import ProtCLIP

        args = self.args
        model = ProtCLIP.from_pretrained(args.checkpoint, device=args.torch_device, dtype=args.dtype or dtype)
        if model.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{args.checkpoint}: is the model {model.fingerprint}, and was {self.fingerprint} when the "
                "application was deployed; deploy again."
            )
        self._encoder = Retriever(model)
        self._model = self._model_info(model)
        self._threads = args.threads or max(1, num_cores() // args.max_replicas)
        self._long: Batcher[Question, Prepared] = Batcher(
            partial(each_alone_on_error, self._encoder.prepare),
            max_batch_cost=LETTERS_AT_ONCE,
            max_cost_before=4 * args.limits.max_body_bytes,
            name="long",
        )
        self._embeddings: Batcher[tuple[Prepared, Search | None], Asked | Answer] = Batcher(
            self._embed_and_search,
            max_batch_cost=args.tokens_per_batch or model.tokens_per_batch,
            max_cost_before=args.max_waiting_tokens,
            at_once_s=LITTLE_S if waits_for_nothing(model.device, model.dtype) else 0.0,
            name="model",
        )
        self._sequences = None if args.sequences is None else load_sequences(args.sequences)
        self._explainer = Explainer(
            self._encoder,
            explain_s=args.limits.explain_s,
            is_searching=lambda: self._embeddings.running_s() > 0,
            use_threads=partial(self._use_threads, num_spared=1),
            count_tokens=self.metrics.count_explained,
        )
        # Torch gives up Python's lock at each step; by default the event loop would keep it from the next for 5 ms.
        sys.setswitchinterval(SWITCH_S)
        return model

    def _model_info(self, model: ProtCLIP) -> ModelInfo:
        record = read_checkpoint_record(checkpoint_folder(self.args.checkpoint))
        quality = quality_of(record.metrics, record.data)
        return ModelInfo(
            fingerprint=self.fingerprint,
            dimension=model.dimension,
            max_protein_tokens=model.max_protein_tokens,
            max_text_tokens=model.max_text_tokens,
            num_parameters=sum(parameter.numel() for parameter in model.model.parameters()),
            scale=model.scale,
            device=str(model.device),
            dtype=cast(Dtype, str(model.dtype).removeprefix("torch.")),
            metrics=record.metrics or {},
            quality=None if quality is None else ModelQuality.model_validate(quality, from_attributes=True),
            quality_note=quality_note(quality),
        )

    async def _prepare(self, questions: Sequence[Question]) -> list[Prepared]:
        letters = [1 + len(one.text or one.sequence or "") for one in questions]
        if sum(letters) <= SHORT_LETTERS:
            return self._encoder.prepare(questions)
        return await self._long.run(questions, letters, deadline=deadline())

    async def _compute(self, prepared: Sequence[Prepared], search: Search | None) -> list[Asked | Answer]:
        hits = 0 if search is None else search.options.offset + search.options.k
        costs = [ITEM_TOKENS + one.num_tokens + hits // HITS_OF_TOKEN for one in prepared]
        return await self._embeddings.run([(one, search) for one in prepared], costs, deadline=deadline())

    async def _embed_windows(self, questions: Sequence[Question]) -> list[Asked]:
        """As ``ProtCLIP.embed_proteins(…, long="window-mean")``; each window is an item of its own."""
        size = self._model.max_protein_tokens - 2
        starts = [window_starts(len(question.sequence or ""), size) for question in questions]

        def cut() -> list[Question]:
            return [
                replace(question, sequence=(question.sequence or "")[start : start + size])
                for question, its in zip(questions, starts, strict=True)
                for start in its
            ]

        parts = iter(await self.embed(await asyncio.to_thread(cut)))
        means = []
        for question, its in zip(questions, starts, strict=True):
            own = [next(parts) for _ in its]
            vector = own[0].vector
            if len(own) > 1:
                weights = window_weights(its, size, len(question.sequence or ""))
                vector = weights @ np.stack([part.vector for part in own])
                vector /= np.linalg.norm(vector)
            num_tokens = sum(part.num_tokens for part in own)
            means.append(Asked(question=question, vector=vector, kind="protein", num_tokens=num_tokens))
        return means

    def _embed_and_search(self, items: Sequence[tuple[Prepared, Search | None]]) -> list[Asked | Answer | Exception]:
        began = time.monotonic()
        num_tokens = sum(one.num_tokens for one, _ in items)
        self._use_threads(num_tokens)
        asked = self._encoder.forward([one for one, _ in items])
        results = self._find(asked, [search for _, search in items])
        self.metrics.count_batch(len(items), num_tokens, time.monotonic() - began)
        return results

    def _find(self, asked: Sequence[Asked], searches: Sequence[Search | None]) -> list[Asked | Answer | Exception]:
        """What is made of what was embedded: here nothing, for there is no index."""
        assert not any(searches)
        return list(asked)

    def _use_threads(self, num_tokens: int, *, num_spared: int = 0) -> None:
        """Of the calling thread; Ray has set one for torch, for a share of a processor.

        Little work is done soonest by one: several wait for each other, and for long where the processors are busy.
        """
        import torch

        much = self._model.num_parameters * num_tokens > WORK_OF_ONE_THREAD
        torch.set_num_threads(max(1, self._threads - num_spared) if much else 1)


class EncoderReplica(Encoder):
    """The model of a sharded deployment; gateways ask it."""

    def __init__(self, args: AppArgs, fingerprint: str, dtype: Dtype) -> None:
        keep_to_loopback()
        super().__init__(args, fingerprint)
        self._load_model(dtype)

    async def encode(self, call: Call, questions: Sequence[Question], long: LongPolicy) -> list[Asked] | Exception:
        """``embed`` for a gateway."""
        return await answer(call, self.fingerprint, lambda: self.embed(questions, long=long))

    async def explain(self, call: Call, arguments: Mapping[str, Any]) -> Explanation | Exception:
        """``explain_protein`` for a gateway."""
        return await answer(call, self.fingerprint, lambda: self.explain_protein(**arguments))

    async def sequence(self, call: Call, accession: str, sequence_hash: int | None) -> str | None:
        """``find_sequence`` for a gateway."""
        del call
        return self.find_sequence(accession, sequence_hash)

    async def describe(self, call: Call) -> ModelInfo:
        """``describe_model`` for a gateway."""
        del call
        return self.describe_model()


def no_sequences(accession: str | None) -> RequestError:
    """The refusal of an accession where its sequence is needed, and the server has none."""
    return RequestError(
        f"accession {accession!r:.80}: this server was started without sequences; give 'sequence' instead."
    )
