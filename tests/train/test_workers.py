"""The same steps in one process and in several, and again from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import make_batch, random_pairs, tiny_model, tokenized
from torch.distributed import ProcessGroup
from workers import run_workers

from protclip import distributed, layout
from protclip.config import ObjectivesConfig, OptimizerConfig
from protclip.data.collate import Batch
from protclip.inputs import Dtype
from protclip.model.dual_encoder import ENCODING_METHODS
from protclip.model.tensors import save_weights
from protclip.pretraining.learner import DualEncoderLearner, part_of
from protclip.train.loop import fit
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.state import TrainState, load_trainer, save_trainer, take_snapshot
from protclip.train.step import Part, StepReport, Wishes

STEPS, SIZE = 20, 8
OBJECTIVES = ObjectivesConfig(num_prototypes=16)

Terms = list[dict[str, float]]


def train(
    group: ProcessGroup | None,
    dtype: torch.dtype,
    micro_batches: int,
    strategy: str = "ddp",
    *,
    precision: Dtype = "float32",
    begin: str | None = None,
    save: str | None = None,
) -> Terms:
    """The terms of twenty steps of eight pairs, or of those from a checkpoint; saved after the tenth if asked."""
    model = tiny_model(objectives=OBJECTIVES)
    model.model.to(dtype)
    model.model.precision = precision
    if strategy == "fsdp":
        network = layout.shard(model.model, model.model.blocks, group, methods=ENCODING_METHODS)
    else:
        network = layout.replicate(model.model, group)
    tokens = tokenized(model, random_pairs(STEPS * SIZE))
    config = OptimizerConfig(learning_rate=1e-3)
    state = TrainState(
        model=model.model,
        optimizer=build_optimizer(model.model, config),
        schedule=build_schedule(config, epoch_ends=[STEPS]),
    )
    if begin is not None:
        load_trainer(begin, state)
    own = SIZE // distributed.world_size(group)
    first = distributed.rank(group) * own

    def parts(_: int, first_batch: int) -> Iterator[Part[Batch]]:
        for step in range(first_batch, STEPS):
            rows = tokens.slice(step * SIZE + first, own)
            size = own // micro_batches
            batches = [make_batch(model, rows.slice(start, size)) for start in range(0, own, size)]
            yield part_of(batches, rows.column("accession").to_pylist(), model.model)

    found: Terms = []

    def after_step(report: StepReport, *_: float) -> None:
        found.append(report.terms)
        if save is not None and state.step == STEPS // 2:
            snapshot = take_snapshot(state, keep=distributed.rank(group) == 0)
            with layout.whole_weights(network):  # as after an epoch, with unequal parts
                model.embed_proteins(["MKV"] * (1 + distributed.rank(group)))
                model.embed_proteins(["MKV"] * distributed.rank(group))
            if distributed.rank(group) == 0:
                save_trainer(save, snapshot)
                save_weights(save, dict(snapshot.weights), max_shard_bytes=1 << 20)

    fit(
        state,
        DualEncoderLearner(model.model, network, group),
        parts=parts,
        after_step=after_step,
        end_epoch=lambda _: None,
        wishes=Wishes,
        epochs=1,
        early_stop_epochs=None,
        max_grad_norm=1.0,
        max_skipped_steps=0,
        group=group,
    )
    return found


def run_rank(rank: int, group: ProcessGroup, folder: Path, *runs: dict[str, Any]) -> None:
    found = [train(group, **run) for run in runs]
    if rank == 0:
        (folder / "terms.json").write_text(json.dumps(found))


def in_workers(folder: Path, world_size: int, *runs: dict[str, Any]) -> list[Terms]:
    run_workers(run_rank, world_size, folder, *runs)
    found: list[Terms] = json.loads((folder / "terms.json").read_text())
    return found


def assert_same(found: Terms, wanted: Terms, tolerance: float) -> None:
    assert len(found) == len(wanted)
    for step, (one, other) in enumerate(zip(found, wanted, strict=True)):
        for name, value in other.items():
            assert one[name] == pytest.approx(value, rel=tolerance), (step, name)


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("world_size", "micro_batches", "dtype", "tolerance"),
    [(2, 2, torch.float64, 1e-10), (4, 1, torch.float64, 1e-10), (4, 1, torch.float32, 1e-5)],
)
def test_twenty_steps_are_the_same_on_any_number_of_workers(
    tmp_path: Path, world_size: int, micro_batches: int, dtype: torch.dtype, tolerance: float
) -> None:
    (found,) = in_workers(tmp_path, world_size, {"dtype": dtype, "micro_batches": micro_batches})
    wanted = train(None, dtype, 1)
    assert len(wanted) == STEPS
    assert_same(found, wanted, tolerance)


@pytest.mark.ranks
@pytest.mark.parametrize("world_size", [2, 3])
def test_workers_that_start_again_make_the_very_steps_that_they_would_have_made(
    tmp_path: Path, world_size: int
) -> None:
    # DDP's first step after a start is like all others: with three workers the order of its sums could tell it.
    half = str(tmp_path / "half")
    run = {"dtype": torch.float32, "micro_batches": 1, "precision": "bfloat16"}
    undisturbed, again = in_workers(tmp_path, world_size, {**run, "save": half}, {**run, "begin": half})
    assert again == undisturbed[STEPS // 2 :]


@pytest.mark.ranks
def test_a_sharded_model_makes_the_steps_of_a_replicated_one_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    ddp, fsdp = str(tmp_path / "ddp"), str(tmp_path / "fsdp")
    run = {"dtype": torch.float64, "micro_batches": 1}
    replicated, sharded, cached, from_sharded, from_replicated = in_workers(
        tmp_path,
        2,
        {**run, "save": ddp},
        {**run, "strategy": "fsdp", "save": fsdp},
        {**run, "strategy": "fsdp", "micro_batches": 2},
        {**run, "begin": fsdp},
        {**run, "strategy": "fsdp", "begin": ddp},
    )
    assert_same(replicated, train(None, torch.float64, 1), 1e-10)
    assert_same(sharded, replicated, 1e-10)
    assert_same(cached, replicated, 1e-10)
    assert_same(from_sharded, replicated[STEPS // 2 :], 1e-10)
    assert_same(from_replicated, replicated[STEPS // 2 :], 1e-10)
