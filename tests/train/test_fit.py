"""The loop in one process: it learns, and a saved state goes on bit by bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import make_batch, random_pairs, tiny_model, tokenized

from protclip.config import ObjectivesConfig, OptimizerConfig
from protclip.data.collate import Batch
from protclip.errors import CheckpointError
from protclip.model.tensors import write_tensors
from protclip.train.loop import fit
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.state import TrainState, load_trainer, save_trainer

pytestmark = pytest.mark.unit

BATCHES, EPOCHS, SIZE = 4, 3, 8
OBJECTIVES = ObjectivesConfig(num_prototypes=16)


def batches(epoch: int, first: int) -> Iterator[Batch]:
    """The same 32 pairs each epoch, in an order of the epoch's own."""
    model = tiny_model(objectives=OBJECTIVES)
    tokens = tokenized(model, random_pairs(BATCHES * SIZE))
    order = np.random.default_rng(epoch).permutation(len(tokens)).reshape(BATCHES, SIZE)
    return islice((make_batch(model, tokens.take(rows), epoch=epoch) for rows in order), first, None)


def new_state() -> TrainState:
    model = tiny_model(objectives=OBJECTIVES).model
    config = OptimizerConfig(learning_rate=1e-2, warmup_fraction=0.1)
    optimizer = build_optimizer(model, config)
    return TrainState(
        model=model, optimizer=optimizer, schedule=build_schedule(optimizer, config, total_steps=BATCHES * EPOCHS)
    )


def train(state: TrainState, epochs: int = EPOCHS) -> list[dict[str, float]]:
    losses: list[dict[str, float]] = []
    lines: list[str] = []
    fit(
        state,
        state.model,
        batches=batches,
        end_epoch=lambda _, train: losses.append(train),
        epochs=epochs,
        batches_per_epoch=[BATCHES] * EPOCHS,
        group=None,
        log=lines.append,
        log_every_s=0.0,
    )
    assert all(name in line for line in lines for name in ("loss", "gc", "bsr", "pda", "mlm", "ETA"))
    return losses


def weights(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def test_the_loss_falls_and_every_parameter_is_used() -> None:
    state = new_state()
    before = weights(state)
    losses = train(state)
    assert len(losses) == EPOCHS
    assert losses[-1].keys() == {"loss", "gc", "bsr", "pda", "mlm"}
    assert all(losses[-1][name] < losses[0][name] for name in losses[0])
    assert losses[0]["mlm"] < 2 * math.log(33)  # a mean over steps, not a sum
    for terms in losses:  # exactly, in the order of the sum
        assert terms["loss"] == terms["gc"] + 0.7 * terms["bsr"] + 1.0 * terms["pda"] + 0.3 * terms["mlm"]
    assert state.step == BATCHES * EPOCHS
    assert state.optimizer.param_groups[0]["lr"] == 0.0
    unchanged = [name for name, value in state.model.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []


def test_a_run_that_goes_on_from_its_files_equals_the_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = new_state()
    train(undisturbed)

    first = new_state()
    train(first, epochs=1)
    save_trainer(str(tmp_path), first)
    write_tensors(str(tmp_path / "model.safetensors"), first.model.state_dict())
    second = new_state()
    load_trainer(str(tmp_path), second)
    assert (second.epoch, second.batch, second.step) == (1, 0, BATCHES)
    train(second)
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(weights(second)[name], tensor), name


def test_a_trainer_state_of_another_run_is_refused(tmp_path: Path) -> None:
    state = new_state()
    train(state, epochs=1)
    save_trainer(str(tmp_path), state)
    write_tensors(str(tmp_path / "model.safetensors"), state.model.state_dict())
    other = new_state()
    other.optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_trainer(str(tmp_path), other)


def test_schedule_warms_up_and_decays_to_nothing() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimizer, OptimizerConfig(learning_rate=1.0, warmup_fraction=0.2), total_steps=10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[3:] == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert optimizer.param_groups[0]["lr"] == 0.0
