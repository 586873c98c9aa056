"""What each train worker runs: its stream, its process group, reports round ``protclip.train.loop.fit``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from protclip import distributed, files
from protclip.config import PretrainConfig, config_dict
from protclip.data.collate import Batch, Masking, collate, identity, ragged
from protclip.data.tokenize import TOKENIZED_COLUMNS, TextTokenizer, tokenize_pairs
from protclip.embedding import ProtCLIP
from protclip.evaluation.objectives import validation_terms
from protclip.evaluation.retrieval import validation_metrics
from protclip.hashing import hash64
from protclip.losses.total import with_loss
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer
from protclip.model.checkpoint import save_checkpoint
from protclip.protanno.shards import RowGroup, read_row_group
from protclip.train import state as train_state
from protclip.train.loop import fit
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.state import TrainState
from ray_jobs.cluster import tame_ray_data
from ray_jobs.lanes import LanePlan, stream

METRICS = "metrics.json"
VALID_BLOCK = 32
"""Held-out pairs that are measured together, and that PDA contrasts where it does so between proteins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """All that a train worker is told."""

    config: PretrainConfig
    plan: LanePlan
    """Of the first epoch; the others differ in ``epoch`` alone."""
    valid: tuple[RowGroup, ...]
    text_tokenizer_json: str

    @property
    def batches_per_epoch(self) -> list[int]:
        """Global batches of each epoch."""
        return [replace(self.plan, epoch=epoch).num_batches for epoch in range(self.config.epochs)]


def train_worker(arguments: dict[str, TrainJob]) -> None:
    """Train in this process, one of the group that Ray Train has set up."""
    tame_ray_data()
    Worker(arguments["job"]).run()


class Worker:
    """One process of a pretraining."""

    def __init__(self, job: TrainJob) -> None:
        self.job = job
        self.config = job.config
        self.group = dist.group.WORLD
        self.rank = distributed.rank(self.group)
        self.device = ray.train.torch.get_device()
        self.protein_tokenizer = build_protein_tokenizer(self.config.model)
        self.text_tokenizer = TextTokenizer.from_json(
            job.text_tokenizer_json, max_tokens=self.config.model.text.max_tokens
        )
        self.state = self._initial_state()
        self.valid = self._valid_rows()
        self.started = time.monotonic()

    def run(self) -> None:
        """Measure the start, train, and report each epoch."""
        network = DistributedDataParallel(
            self.state.model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            process_group=self.group,
        )
        if self.state.step == 0:
            self._record(epoch=0, train=None, valid=self._evaluate())
        fit(
            self.state,
            network,
            batches=self._batches,
            end_epoch=self._end_epoch,
            epochs=self.config.epochs,
            batches_per_epoch=self.job.batches_per_epoch,
            group=self.group,
            log=self._log,
            log_every_s=self.config.log_every_s,
        )

    def _initial_state(self) -> TrainState:
        architecture = build_architecture(self.config.model, self.text_tokenizer, self.config.objectives)
        model = build_model(self.config.model, architecture, seed=self.config.seed).to(self.device)
        optimizer = build_optimizer(model, self.config.optimizer)
        schedule = build_schedule(optimizer, self.config.optimizer, total_steps=sum(self.job.batches_per_epoch))
        state = TrainState(model=model, optimizer=optimizer, schedule=schedule)
        if (checkpoint := ray.train.get_checkpoint()) is not None:
            with checkpoint.as_directory() as folder:
                train_state.load_trainer(folder, state)
            self._log(f"continuing after epoch {state.epoch} (step {state.step})")
        return state

    def _batches(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        tables = stream(
            replace(self.job.plan, epoch=epoch),
            self.protein_tokenizer,
            self.text_tokenizer,
            rank=self.rank,
            num_workers=distributed.world_size(self.group),
            first_batch=first_batch,
            properties=self.config.objectives.pda > 0,
        )
        for table in tables:
            yield self._collate(table, seed=self.config.seed, epoch=epoch)

    def _collate(self, rows: pa.Table, *, seed: int, epoch: int) -> Batch:
        masking = Masking(
            objectives=self.config.objectives, seed=seed, epoch=epoch, mask_id=self.protein_tokenizer.mask_id
        )
        pads = {
            "protein_pad_id": self.protein_tokenizer.pad_id,
            "text_pad_id": self.state.model.architecture.text.pad_token_id,
        }
        return collate(rows, **pads, masking=masking).to(self.device)

    def _valid_rows(self) -> pa.Table:
        """This worker's part of the validation pairs, tokenised; the parts in rank order are the first pairs."""
        tables, missing = [], self.config.valid_pairs
        for group in self.job.valid:
            if missing <= 0:
                break
            tables.append(read_row_group(group, columns=list(TOKENIZED_COLUMNS)).slice(0, missing))
            missing -= len(tables[-1])
        rows = pa.concat_tables(tables)
        # Whole blocks, so that PDA contrasts the same proteins whatever the number of workers.
        num_blocks = -(-len(rows) // VALID_BLOCK)
        bounds = np.linspace(0, num_blocks, distributed.world_size(self.group) + 1).round().astype(int) * VALID_BLOCK
        part = rows.slice(bounds[self.rank], bounds[self.rank + 1] - bounds[self.rank])
        return tokenize_pairs(
            part, self.protein_tokenizer, self.text_tokenizer, properties=self.config.objectives.pda > 0
        )

    def _evaluate(self) -> dict[str, Any]:
        """Metrics on the validation pairs of all workers; every worker computes the same."""
        model = ProtCLIP(self.state.model, self.protein_tokenizer, self.text_tokenizer, device=self.device)
        parts = [
            torch.from_numpy(model.forward_proteins(ragged(self.valid.column("protein_ids")))),
            torch.from_numpy(model.forward_texts(ragged(self.valid.column("text_ids")))),
            identity(self.valid),
        ]
        protein_ND, text_ND, identity_N2 = (
            distributed.gather_uneven_rows(part.to(self.device), self.group) for part in parts
        )
        metrics = validation_metrics(
            protein_ND,
            text_ND,
            identity_N2,
            self.state.model.logit_scale.detach(),
            batch_size=self.config.batch.global_batch_size,
        )
        terms = validation_terms(self.state.model, self._valid_batches(), group=self.group)
        return {**metrics, **with_loss({"gc": metrics["gc"], **terms}, self.config.objectives)}

    def _valid_batches(self) -> Iterator[Batch]:
        """The validation rows with masks of their own, the same after each epoch."""
        for start in range(0, len(self.valid), VALID_BLOCK):
            yield self._collate(self.valid.slice(start, VALID_BLOCK), seed=hash64(self.config.seed, "valid"), epoch=0)

    def _end_epoch(self, state: TrainState, train: dict[str, float]) -> None:
        valid = self._evaluate()
        self._record(epoch=state.epoch, train=train, valid=valid)
        recalls = ", ".join(f"{valid[way]['recall@10']:.3f} {way}" for way in ("text_to_protein", "protein_to_text"))
        self._log(
            f"epoch {state.epoch}/{self.config.epochs} done: training loss {_spelled(train)}, validation loss "
            f"{_spelled({name: valid[name] for name in train})}, recall@10 of {valid['num_pairs']}: {recalls}"
        )
        metrics = {"epoch": state.epoch, "train_loss": train["loss"], "valid_loss": valid["loss"]}
        name = f"epoch-{state.epoch:04d}"
        if self.rank != 0:
            ray.train.report(metrics, checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory() as folder:
            train_state.save_trainer(folder, state)
            save_checkpoint(
                folder,
                state.model,
                self.protein_tokenizer,
                self.text_tokenizer,
                extra_files=(train_state.TENSORS, train_state.PROGRESS),
                metrics={**metrics, "train": train, "valid": valid},
                run=config_dict(self.config),
            )
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)

    def _record(self, **values: Any) -> None:
        """Add an epoch to the run's metrics; entries of epochs that a restart repeats are replaced."""
        if self.rank != 0:
            return
        path = files.join(self.config.run_dir, METRICS)
        history = files.read_json(path)["history"] if files.exists(path) else []
        history = [entry for entry in history if entry["epoch"] < values["epoch"]]
        entry = {**values, "step": self.state.step, "seconds": round(time.monotonic() - self.started, 1)}
        files.write_json(path, {"history": [*history, entry]})

    def _log(self, line: str) -> None:
        if self.rank == 0:
            print(line, flush=True)


def _spelled(losses: dict[str, float]) -> str:
    """``2.345``, or with the terms where there are several: ``2.345 (gc 1.200, mlm 2.800)``."""
    total, *terms = (f"{name} {loss:.3f}" for name, loss in losses.items())
    total = total.removeprefix("loss ")
    return f"{total} ({', '.join(terms)})" if len(terms) > 1 else total
