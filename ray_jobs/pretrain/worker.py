"""What each train worker runs: its stream, its process group, reports round ``protclip.train.loop.fit``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from protclip import distributed, files, layout
from protclip.config import PretrainConfig, config_dict
from protclip.data.collate import Batch, Masking, collate, identity, ragged
from protclip.data.prefetch import prefetched
from protclip.data.tokenize import TOKENIZED_COLUMNS, TextTokenizer, tokenize_pairs
from protclip.embedding import ProtCLIP
from protclip.errors import ConfigError, ProtclipError
from protclip.evaluation.objectives import validation_terms
from protclip.evaluation.retrieval import validation_metrics
from protclip.hashing import hash64
from protclip.losses.total import with_loss
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer
from protclip.model.checkpoint import save_checkpoint
from protclip.model.dual_encoder import ENCODING_METHODS
from protclip.protanno.shards import RowGroup, first_rows
from protclip.train.checkpoints import Writer, newest
from protclip.train.loop import (
    NothingToLearnError,
    Part,
    StoppedError,
    TooManySkippedError,
    fit,
    refuse_no_contrast,
)
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.progress import Progress, StepLog
from protclip.train.report import write_report
from protclip.train.selection import cost
from protclip.train.state import PROGRESS, TENSORS, TrainState, load_trainer, save_trainer, take_snapshot
from protclip.train.step import StepReport, Wishes
from protclip.train.trackers import epoch_scalars, open_trackers, step_scalars
from ray_jobs.cluster import tame_ray_data
from ray_jobs.pretrain.lanes import LanePlan, stream

METRICS, ROWS = "metrics.json", "rows"
LOOK_EVERY_S = 5.0
"""Between two looks whether a node is about to be taken away."""
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
    data: dict[str, Any]
    """What checkpoints tell of the pairs, wherever they lie: their numbers and their fingerprint."""

    @property
    def batches_per_epoch(self) -> list[int]:
        """Global batches of each epoch."""
        return [replace(self.plan, epoch=epoch).num_batches for epoch in range(self.config.epochs)]


def train_worker(arguments: dict[str, TrainJob]) -> str | None:
    """Train in this process, one of the group that Ray Train has set up.

    Returns:
        Why the run has to end, where starting the workers again would change nothing; None when it is finished. An
        exception has them started again.
    """
    tame_ray_data()
    return Worker(arguments["job"]).run()


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
        self.failure: ProtclipError | None = None
        """Why the run has to end."""
        self.preemption: Any = None
        self.last_saved = self.last_look = time.monotonic()
        if self.rank == 0:
            run_dir = self.config.run_dir
            self.writer = Writer(run_dir, keep=self.config.keep_checkpoints, selection=self.config.selection)
            self.steps = StepLog(run_dir, first_step=self.state.step)
            self.trackers = open_trackers(self.config.trackers, run_dir, config_dict(self.config))

    def run(self) -> str | None:
        """Measure the start, train, and save; returns why the run has to end, or None."""
        try:
            if self.state.step == 0:
                valid = self._evaluate()
                refuse_no_contrast(valid["gc"], f"the {valid['num_pairs']} validation pairs")
                if self.rank == 0:
                    with self._noticing_failures():
                        self._record(epoch=0, train=None, valid=valid)
            self.progress = Progress(
                self.state,
                total_steps=sum(self.job.batches_per_epoch),
                epochs=self.config.epochs,
                every_s=self.config.log_every_s,
            )
            fit(
                self.state,
                self.network,
                parts=self._parts,
                after_step=self._after_step,
                end_epoch=self._end_epoch,
                wishes=self._wishes,
                epochs=self.config.epochs,
                early_stop_epochs=self.config.early_stop_epochs,
                max_grad_norm=self.config.optimizer.max_grad_norm,
                max_skipped_steps=self.config.max_skipped_steps,
                group=self.group,
            )
        except StoppedError:
            pass
        except (TooManySkippedError, NothingToLearnError) as error:  # the same on every worker
            self.failure = error
        if self.rank == 0:
            with self._noticing_failures():
                self.writer.wait()
                self.steps.write()
                for tracker in self.trackers:
                    tracker.close()
                write_report(self.config.run_dir)
        return distributed.from_first_worker(str(self.failure) if self.failure else None, self.group)

    def _initial_state(self) -> TrainState:
        architecture = build_architecture(self.config.model, self.text_tokenizer, self.config.objectives)
        precision = self.config.precision
        assert precision != "auto", "who started the workers has decided"
        model = build_model(self.config.model, architecture, seed=self.config.seed, precision=precision).to(self.device)
        if self.config.workers.strategy == "fsdp":
            self.network = layout.shard(model, model.blocks, self.group, methods=ENCODING_METHODS)
        else:
            self.network = layout.replicate(model, self.group)
        optimizer = build_optimizer(model, self.config.optimizer)
        epoch_ends = np.cumsum(self.job.batches_per_epoch).tolist()
        schedule = build_schedule(self.config.optimizer, epoch_ends=epoch_ends)
        state = TrainState(model=model, optimizer=optimizer, schedule=schedule)
        # One worker looks, so that all go on from the same.
        found = newest(self.config.run_dir, tell=self._log) if self.rank == 0 else None
        if (folder := distributed.from_first_worker(found, self.group)) is not None:
            load_trainer(folder, state)
            self._log(f"going on after step {state.step}, in epoch {state.epoch + 1} ({folder})")
        return state

    def _parts(self, epoch: int, first_batch: int) -> Iterator[Part]:
        num_workers = distributed.world_size(self.group)
        plan = replace(self.job.plan, epoch=epoch)
        tables = stream(
            plan,
            self.protein_tokenizer,
            self.text_tokenizer,
            rank=self.rank,
            num_workers=num_workers,
            first_batch=first_batch,
            properties=self.config.objectives.pda > 0,
            sample_texts=self.config.data.text_sampling == "properties",
        )
        size = self.config.batch.global_batch_size // num_workers // self.config.batch.micro_batches
        collated = (
            (
                [
                    self._collate(table.slice(start, size), seed=self.config.seed, epoch=epoch)
                    for start in range(0, len(table), size)
                ],
                table.column("accession").to_pylist(),
            )
            for table in tables
        )
        number = first_batch
        with self._row_log() as log:
            for batches, accessions in prefetched(collated, self.device):
                number += 1
                log(accessions)
                yield Part(batches=batches, accessions=accessions)
        assert number == plan.num_batches, "the stream ended early"

    @contextlib.contextmanager
    def _row_log(self) -> Iterator[Callable[[list[str]], None]]:
        """Takes the rows of each batch that is about to be trained on."""
        if not self.config.log_rows:
            yield lambda _: None
            return
        folder = Path(self.config.run_dir) / ROWS
        folder.mkdir(exist_ok=True)
        life = distributed.from_first_worker(str(time.time_ns()), self.group)
        with (folder / f"{time.time_ns()}-{self.rank}.jsonl").open("w") as target:

            def write(accessions: list[str]) -> None:
                # The step that the rows will have been part of.
                row = {"life": life, "step": self.state.step + 1, "accessions": accessions}
                target.write(json.dumps(row) + "\n")
                target.flush()

            yield write

    def _collate(self, rows: pa.Table, *, seed: int, epoch: int) -> Batch:
        masking = Masking(
            objectives=self.config.objectives, seed=seed, epoch=epoch, mask_id=self.protein_tokenizer.mask_id
        )
        pads = {
            "protein_pad_id": self.protein_tokenizer.pad_id,
            "text_pad_id": self.state.model.architecture.text.pad_token_id,
        }
        return collate(rows, **pads, masking=masking)

    def _valid_rows(self) -> pa.Table:
        """This worker's part of the validation pairs, tokenised; the parts in rank order are the first pairs."""
        rows = pa.concat_tables(first_rows(self.job.valid, self.config.valid_pairs, list(TOKENIZED_COLUMNS)))
        # Whole blocks, so that PDA contrasts the same proteins whatever the number of workers.
        num_blocks = -(-len(rows) // VALID_BLOCK)
        bounds = np.linspace(0, num_blocks, distributed.world_size(self.group) + 1).round().astype(int) * VALID_BLOCK
        part = rows.slice(bounds[self.rank], bounds[self.rank + 1] - bounds[self.rank])
        return tokenize_pairs(
            part, self.protein_tokenizer, self.text_tokenizer, properties=self.config.objectives.pda > 0
        )

    def _evaluate(self) -> dict[str, Any]:
        """Metrics on the validation pairs of all workers; every worker computes the same."""
        network = self.state.model
        tokenizers = self.protein_tokenizer, self.text_tokenizer
        model = ProtCLIP(network, *tokenizers, device=self.device, dtype=network.precision)
        with layout.whole_weights(self.network):
            parts = [
                torch.from_numpy(model.forward_proteins(ragged(self.valid.column("protein_ids")))),
                torch.from_numpy(model.forward_texts(ragged(self.valid.column("text_ids")))),
                identity(self.valid),
            ]
            terms = validation_terms(self.state.model, self._valid_batches(), group=self.group)
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
        return {**metrics, **with_loss({"gc": metrics["gc"], **terms}, self.config.objectives)}

    def _valid_batches(self) -> Iterator[Batch]:
        """The validation rows with masks of their own, the same after each epoch."""
        for start in range(0, len(self.valid), VALID_BLOCK):
            yield self._collate(
                self.valid.slice(start, VALID_BLOCK), seed=hash64(self.config.seed, "valid"), epoch=0
            ).to(self.device)

    def _wishes(self) -> Wishes:
        now, first = time.monotonic(), self.rank == 0
        return Wishes(
            stop=self.failure is not None,
            look=first and now - self.last_look >= LOOK_EVERY_S,
            save=first and now - self.last_saved >= self.config.checkpoint_every_s and not self.writer.busy,
        )

    def _after_step(self, report: StepReport, waited: float) -> None:
        if report.skipped:
            rows = ", ".join(self.state.skipped[-1].accessions) or "no row alone"
            self._log(f"step {self.state.step} is left out: its gradient is not finite; not finite alone: {rows}")
        soon = report.wishes.look and self._is_preempted()
        if report.wishes.save or soon:
            self._save({})
        if self.rank != 0:
            return
        with self._noticing_failures():
            if (record := self.progress.add(report, waited)) is not None:
                self._log(self.progress.line(record))
                self.steps.add(record)
                self._track(step_scalars(record))
            if self.writer.error is not None:
                raise self.writer.error
            if soon:
                self.writer.wait()
                self._log(f"a node will be taken away: a checkpoint is made after step {self.state.step}")

    def _is_preempted(self) -> bool:
        """Whether it is news that a node of this run will be taken away; to be asked by all workers together."""
        self.last_look = time.monotonic()
        before, self.preemption = self.preemption, ray.train.get_preemption_info()
        return self.preemption is not None and self.preemption != before

    def _end_epoch(self, train: dict[str, float]) -> None:
        state, began = self.state, time.monotonic()
        valid = self._evaluate()
        state.note_validation(cost(self.config.selection, valid))
        recalls = ", ".join(f"{valid[way]['recall@10']:.3f} {way}" for way in ("text_to_protein", "protein_to_text"))
        self._log(
            f"epoch {state.epoch}/{self.config.epochs} done: training loss {_spelled(train)}, validation loss "
            f"{_spelled({name: valid[name] for name in train})}, recall@10 of {valid['num_pairs']} pairs "
            f"({valid['num_proteins']} proteins, {valid['num_texts']} texts): {recalls}, "
            f"{valid['chance']['recall@10']:.3f} by chance"
        )
        if self.rank == 0:
            with self._noticing_failures():
                self._record(epoch=state.epoch, train=train, valid=valid)
        self._save({"epoch": state.epoch, "train": train, "valid": valid})
        if self.rank == 0:
            with self._noticing_failures():
                write_report(self.config.run_dir)
        self.progress.leave_out(time.monotonic() - began)

    def _save(self, metrics: dict[str, Any]) -> None:
        """Begin to write a checkpoint, all workers together; those of epochs have metrics."""
        snapshot = take_snapshot(self.state, keep=self.rank == 0)
        if self.rank != 0:
            return

        def write(folder: str) -> None:
            save_trainer(folder, snapshot)
            save_checkpoint(
                folder,
                self.state.model,
                self.protein_tokenizer,
                self.text_tokenizer,
                weights=snapshot.weights,
                extra_files=(TENSORS, PROGRESS),
                metrics=metrics,
                run=config_dict(self.config),
                data=self.job.data,
            )

        with self._noticing_failures():
            self.steps.write()
            self.writer.start(self.state.step, write)
        self.last_saved = time.monotonic()

    @contextlib.contextmanager
    def _noticing_failures(self) -> Iterator[None]:
        """What fails on this worker alone ends the run after the next step, for all together."""
        try:
            yield
        except ProtclipError as error:
            self.failure = self.failure or error
        except OSError as error:
            self.failure = self.failure or ConfigError(
                f"run_dir={self.config.run_dir} cannot be written ({error}); mend that, then run the same command "
                "again: it goes on from the last checkpoint."
            )

    def _record(self, **values: Any) -> None:
        """Add an epoch to the run's metrics; entries of epochs that a restart repeats are replaced."""
        path = files.join(self.config.run_dir, METRICS)
        history = files.read_json(path)["history"] if files.exists(path) else []
        history = [entry for entry in history if entry["epoch"] < values["epoch"]]
        entry = {**values, "step": self.state.step, "seconds": round(time.monotonic() - self.started, 1)}
        files.write_json(path, {"selection": asdict(self.config.selection), "history": [*history, entry]})
        self._track(epoch_scalars(entry))

    def _track(self, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(values, self.state.step)

    def _log(self, line: str) -> None:
        if self.rank == 0:
            print(line, flush=True)


def _spelled(losses: dict[str, float]) -> str:
    """``2.345``, or with the terms where there are several: ``2.345 (gc 1.200, mlm 2.800)``."""
    total, *terms = (f"{name} {loss:.3f}" for name, loss in losses.items())
    total = total.removeprefix("loss ")
    return f"{total} ({', '.join(terms)})" if len(terms) > 1 else total
