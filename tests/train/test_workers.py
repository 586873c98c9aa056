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
from torch.nn.parallel import DistributedDataParallel
from workers import run_workers

from protclip import distributed
from protclip.config import ObjectivesConfig, OptimizerConfig
from protclip.train.loop import Part, fit
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.state import TrainState
from protclip.train.step import Wishes

STEPS, SIZE = 20, 8
OBJECTIVES = ObjectivesConfig(num_prototypes=16)

Terms = list[dict[str, float]]


def train(group: ProcessGroup | None, dtype: torch.dtype, micro_batches: int) -> Terms:
    """The terms of twenty steps of eight pairs."""
    model = tiny_model(objectives=OBJECTIVES)
    model.model.to(dtype)
    tokens = tokenized(model, random_pairs(STEPS * SIZE))
    config = OptimizerConfig(learning_rate=1e-3)
    state = TrainState(
        model=model.model,
        optimizer=build_optimizer(model.model, config),
        schedule=build_schedule(config, epoch_ends=[STEPS]),
    )
    own = SIZE // distributed.world_size(group)
    first = distributed.rank(group) * own

    def parts(epoch: int, first_batch: int) -> Iterator[Part]:  # noqa: ARG001
        for step in range(STEPS):
            rows = tokens.slice(step * SIZE + first, own)
            size = own // micro_batches
            batches = [make_batch(model, rows.slice(start, size)) for start in range(0, own, size)]
            yield Part(batches=batches, accessions=rows.column("accession").to_pylist())

    found: Terms = []
    network: Any = model.model
    if group is not None:
        network = DistributedDataParallel(network, process_group=group, find_unused_parameters=True)
    fit(
        state,
        network,
        parts=parts,
        after_step=lambda report, _: found.append(report.terms),
        end_epoch=lambda _: None,
        wishes=Wishes,
        epochs=1,
        early_stop_epochs=None,
        max_grad_norm=1.0,
        max_skipped_steps=0,
        group=group,
    )
    return found


def run_rank(rank: int, group: ProcessGroup, folder: Path, dtype: torch.dtype, micro_batches: int) -> None:
    found = train(group, dtype, micro_batches)
    if rank == 0:
        (folder / "terms.json").write_text(json.dumps(found))


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("world_size", "micro_batches", "dtype", "tolerance"),
    [(2, 2, torch.float64, 1e-10), (4, 1, torch.float64, 1e-10), (4, 1, torch.float32, 1e-5)],
)
def test_twenty_steps_are_the_same_on_any_number_of_workers(
    tmp_path: Path, world_size: int, micro_batches: int, dtype: torch.dtype, tolerance: float
) -> None:
    run_workers(run_rank, world_size, tmp_path, dtype, micro_batches)
    found: Terms = json.loads((tmp_path / "terms.json").read_text())
    wanted = train(None, dtype, 1)
    assert len(found) == len(wanted) == STEPS
    for step, (one, other) in enumerate(zip(found, wanted, strict=True)):
        for name, value in other.items():
            assert one[name] == pytest.approx(value, rel=tolerance), (step, name)
