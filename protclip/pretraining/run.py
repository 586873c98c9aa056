"""One worker of a pretraining, wherever it runs: who starts it gives it its rows, its device and its process group."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from protclip import distributed, layout
from protclip.config import PretrainConfig, config_dict
from protclip.data.collate import Batch, Masking, collate
from protclip.data.prefetch import prefetched
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.hashing import hash64
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer
from protclip.model.checkpoint import save_checkpoint
from protclip.model.dual_encoder import ENCODING_METHODS
from protclip.pretraining.learner import DualEncoderLearner, part_of
from protclip.pretraining.validation import Validation
from protclip.protanno.shards import RowGroup
from protclip.reporting.run_log import RunLog
from protclip.train.loop import RunEndsError
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.run import Run, go_on
from protclip.train.state import PROGRESS, TENSORS, TrainState
from protclip.train.step import Part
from protclip.trained_model import ProtCLIP

ROWS = "rows"

Stream = Callable[[ProteinTokenizer, TextTokenizer, int, int], Iterator[pa.Table]]
"""(tokenizers, epoch, first batch) → this worker's tokenised rows of each global batch from there on."""


class NothingToLearnError(RunEndsError):
    """The contrast is exactly 0: no pair has a negative."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """What each worker of a pretraining is told."""

    config: PretrainConfig
    batches_per_epoch: Sequence[int]
    """Global batches of each epoch."""
    valid: tuple[RowGroup, ...]
    text_tokenizer_json: str
    data: Mapping[str, Any]
    """What checkpoints tell of the pairs, wherever they lie: their numbers and their fingerprint."""


def pretrain(
    job: Pretraining,
    *,
    stream: Stream,
    device: torch.device,
    preemption: Callable[[], object | None] = lambda: None,
    group: ProcessGroup | None = None,
) -> str | None:
    """Train to the end, from the last checkpoint of the run's folder if there is one.

    Args:
        job: the same on every worker.
        stream: this worker's rows.
        device: that it computes on.
        preemption: tells of a node that will be taken away, or None.
        group: the workers, or None for one process.

    Returns:
        Why the run has to end, where starting the workers again would change nothing; None when it is finished.
    """
    config = job.config
    protein_tokenizer = build_protein_tokenizer(config.model)
    text_tokenizer = TextTokenizer.from_json(job.text_tokenizer_json, max_tokens=config.model.text.max_tokens)
    architecture = build_architecture(config.model, text_tokenizer, config.objectives)
    assert config.precision != "auto", "who started the workers has decided"
    model = build_model(config.model, architecture, seed=config.seed, precision=config.precision).to(device)
    if config.workers.strategy == "fsdp":
        network = layout.shard(model, model.blocks, group, methods=ENCODING_METHODS)
    else:
        network = layout.replicate(model, group)
    learner = DualEncoderLearner(model, network, group)
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, config.optimizer),
        schedule=build_schedule(config.optimizer, epoch_ends=np.cumsum(job.batches_per_epoch).tolist()),
    )
    folder = go_on(config.run_dir, state, group)

    def batch_of(rows: pa.Table, *, seed: int, epoch: int) -> Batch:
        masking = Masking(objectives=config.objectives, seed=seed, epoch=epoch, mask_id=protein_tokenizer.mask_id)
        pads = {"protein_pad_id": protein_tokenizer.pad_id, "text_pad_id": architecture.text.pad_token_id}
        return collate(rows, **pads, masking=masking)

    validation = Validation(
        ProtCLIP(model, protein_tokenizer, text_tokenizer, device=device, dtype=config.precision),
        job.valid,
        max_pairs=config.valid_pairs,
        collate=partial(batch_of, seed=hash64(config.seed, "valid"), epoch=0),
        group=group,
    )

    def measure(train: Mapping[str, float] | None) -> dict[str, Any]:
        if train is not None and state.epoch == 1:  # later it may be what was learned
            _refuse_no_contrast(train.get("gc"), f"all {job.batches_per_epoch[0]} steps of epoch 1")
        valid = validation.measure(network, batch_size=config.batch.global_batch_size)
        if train is None:
            _refuse_no_contrast(valid["gc"], f"the {valid['num_pairs']} validation pairs")
        return valid

    size = config.batch.global_batch_size // distributed.world_size(group) // config.batch.micro_batches

    def parts(epoch: int, first_batch: int) -> Iterator[Part[Batch]]:
        def collated() -> Iterator[tuple[list[Batch], Part[Batch]]]:
            for table in stream(protein_tokenizer, text_tokenizer, epoch, first_batch):
                slices = [table.slice(start, size) for start in range(0, len(table), size)]
                batches = [batch_of(rows, seed=config.seed, epoch=epoch) for rows in slices]
                yield batches, part_of(batches, table.column("accession").to_pylist(), model)

        number = first_batch
        with _row_log(config, state, group) as log:
            for batches, part in prefetched(collated(), device):
                number += 1
                log(part.accessions)
                yield replace(part, batches=batches)
        assert number == job.batches_per_epoch[epoch], "the stream ended early"

    def save_model(folder: str, weights: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> None:
        save_checkpoint(
            folder,
            model,
            protein_tokenizer,
            text_tokenizer,
            weights=weights,
            extra_files=(TENSORS, PROGRESS),
            metrics=metrics,
            run=config_dict(config),
            data=job.data,
        )

    observer = None
    if distributed.rank(group) == 0:
        observer = RunLog(config, state, loss=learner.loss, total_steps=sum(job.batches_per_epoch))
        if folder is not None:
            observer.say(f"going on after step {state.step}, in epoch {state.epoch + 1} ({folder})")
    return Run(
        config,
        state,
        learner,
        parts=parts,
        measure=measure,
        save_model=save_model,
        observer=observer,
        preemption=preemption,
        group=group,
    ).run()


def _refuse_no_contrast(gc: float | None, where: str) -> None:
    """Refuse a contrast that compares nothing; None where there is none."""
    if gc == 0.0:
        raise NothingToLearnError(
            f"the contrast was exactly 0 in {where}: all pairs of each batch share their biotext or their sequence, so "
            "that none is a negative of another and nothing is learned; train on more varied pairs."
        )


@contextlib.contextmanager
def _row_log(
    config: PretrainConfig, state: TrainState, group: ProcessGroup | None
) -> Iterator[Callable[[Sequence[str]], None]]:
    """Takes the rows of each batch that is about to be trained on."""
    if not config.log_rows:
        yield lambda _: None
        return
    folder = Path(config.run_dir) / ROWS
    folder.mkdir(exist_ok=True)
    life = distributed.from_first_worker(str(time.time_ns()), group)
    with (folder / f"{time.time_ns()}-{distributed.rank(group)}.jsonl").open("w") as target:

        def write(accessions: Sequence[str]) -> None:
            # The step that the rows will have been part of.
            row = {"life": life, "step": state.step + 1, "accessions": accessions}
            target.write(json.dumps(row) + "\n")
            target.flush()

        yield write
