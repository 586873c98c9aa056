"""The loop in one process: it learns, and a saved state goes on bit by bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_model import make_batch, random_pairs, tiny_model, tokenized

from protclip.config import GC_ALONE, EncoderConfig, ModelConfig, ObjectivesConfig, OptimizerConfig
from protclip.data.collate import Batch
from protclip.errors import CheckpointError
from protclip.losses.total import objective_terms, total_loss
from protclip.model.build import build_architecture, build_model
from protclip.model.tensors import write_tensors
from protclip.pretraining.learner import DualEncoderLearner, part_of
from protclip.train.loop import StoppedError, TooManySkippedError, fit
from protclip.train.optim import build_optimizer, build_schedule, set_learning_rate
from protclip.train.state import PROGRESS, TrainState, load_trainer, save_trainer, take_snapshot
from protclip.train.step import Part, StepReport, Wishes
from protclip.trained_model import ProtCLIP

pytestmark = pytest.mark.unit

BATCHES, EPOCHS, SIZE = 4, 3, 8
OBJECTIVES = ObjectivesConfig(num_prototypes=16)


@cache
def model_and_tokens() -> tuple[ProtCLIP, pa.Table]:
    model = tiny_model(objectives=OBJECTIVES)
    return model, tokenized(model, random_pairs(BATCHES * SIZE))


def parts(epoch: int, first: int, *, micro_batches: int = 1) -> Iterator[Part[Batch]]:
    """The same 32 pairs each epoch, in an order of the epoch's own."""
    model, tokens = model_and_tokens()
    order = np.random.default_rng(epoch).permutation(len(tokens)).reshape(BATCHES, SIZE)
    for rows in islice(order, first, None):
        some = [make_batch(model, tokens.take(few), epoch=epoch) for few in rows.reshape(micro_batches, -1)]
        yield part_of(some, tokens.take(rows).column("accession").to_pylist(), model.model)


def new_state(**options: Any) -> TrainState:
    model = tiny_model(objectives=OBJECTIVES).model
    config = OptimizerConfig(**{"learning_rate": 1e-2, "warmup_fraction": 0.1, **options})
    optimizer = build_optimizer(model, config)
    epoch_ends = [BATCHES * (epoch + 1) for epoch in range(EPOCHS)]
    return TrainState(model=model, optimizer=optimizer, schedule=build_schedule(config, epoch_ends=epoch_ends))


def learner_of(model: Any) -> DualEncoderLearner:
    return DualEncoderLearner(model, model, None)


def train(state: TrainState, **options: Any) -> list[dict[str, float]]:
    losses: list[dict[str, float]] = []
    arguments: dict[str, Any] = {
        "parts": parts,
        "after_step": lambda *_: None,
        "end_epoch": losses.append,
        "wishes": Wishes,
        "epochs": EPOCHS,
        "early_stop_epochs": None,
        "max_grad_norm": 1.0,
        "max_skipped_steps": 0,
        "group": None,
        **options,
    }
    fit(state, learner_of(state.model), **arguments)
    return losses


def weights(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def save(folder: Path, state: TrainState) -> None:
    snapshot = take_snapshot(state)
    save_trainer(str(folder), snapshot)
    write_tensors(str(folder / "model.safetensors"), snapshot.weights)


def assert_equal(one: TrainState, other: TrainState) -> None:
    for name, tensor in weights(one).items():
        assert torch.equal(weights(other)[name], tensor), name


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
    unchanged = [name for name, value in state.model.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []


@pytest.mark.parametrize("steps", [1, BATCHES, BATCHES + 3])
@pytest.mark.slow
def test_a_run_that_goes_on_from_its_files_equals_the_undisturbed_one(tmp_path: Path, steps: int) -> None:
    undisturbed = new_state()
    wanted = train(undisturbed)

    first = new_state()
    made = 0

    def after_step(*_: Any) -> None:
        nonlocal made
        made += 1
        if made == steps:
            save(tmp_path, first)

    train(first, after_step=after_step)  # a snapshot is not changed by what comes after it
    second = new_state()
    load_trainer(str(tmp_path), second)
    assert second.step == steps
    assert (second.epoch, second.batch) == divmod(steps, BATCHES) or second.batch == BATCHES
    found = train(second)
    assert_equal(undisturbed, second)
    assert found == wanted[-len(found) :]  # the means of an epoch, its first steps included


def test_a_trainer_state_of_another_run_is_refused(tmp_path: Path) -> None:
    state = new_state()
    train(state, epochs=1)
    save(tmp_path, state)
    other = new_state()
    other.optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_trainer(str(tmp_path), other)


@pytest.mark.parametrize(
    "objectives",
    [OBJECTIVES, replace(OBJECTIVES, pda_negatives="proteins"), GC_ALONE, replace(GC_ALONE, gc_prefixes=(3, 8, 24))],
)
@pytest.mark.parametrize("micro_batches", [2, 8])
def test_micro_batches_make_the_same_step(objectives: ObjectivesConfig, micro_batches: int) -> None:
    found: dict[int, dict[str, Any]] = {}
    for number in (1, micro_batches):
        model = tiny_model(objectives=objectives)
        model.model.double()
        tokens = tokenized(model, random_pairs(SIZE))
        size = SIZE // number
        batches = [make_batch(model, tokens.slice(i, size)) for i in range(0, SIZE, size)]
        state = TrainState(
            model=model.model,
            optimizer=torch.optim.SGD(model.model.parameters(), lr=1.0),
            schedule=lambda _: 1.0,
        )
        terms = learner_of(state.model).backward(batches)
        gradients = {name: value.grad for name, value in model.model.named_parameters()}
        found[number] = {**terms, **gradients}
    assert found[1].keys() == found[micro_batches].keys()
    for name, value in found[1].items():
        assert value is not None, name
        # ESM turns queries and keys in fp32 in any model.
        tolerance = 1e-7 if name.startswith("protein_encoder.") else 1e-10
        assert (found[micro_batches][name] - value).abs().max() <= tolerance * value.abs().max() + 1e-12, name


def poisoned(state: TrainState, accessions: Container[str]) -> Callable[[int, int], Iterator[Part[Batch]]]:
    """Parts whose rows of these accessions come out of the protein projection as NaN."""
    poison: list[int] = []

    def spoil(module: Any, arguments: Any, output: Any) -> None:  # noqa: ARG001
        output[[i for i in poison if i < len(output)]] = torch.nan

    state.model.protein_projection.register_forward_hook(spoil)

    def some_parts(epoch: int, first: int) -> Iterator[Part[Batch]]:
        for part in parts(epoch, first):
            poison[:] = [i for i, accession in enumerate(part.accessions) if accession in accessions]
            yield part

    return some_parts


def test_a_poisoned_row_costs_its_steps_and_is_named() -> None:
    state = new_state()
    reports: list[StepReport] = []
    before = weights(state)
    train(
        state,
        parts=poisoned(state, {"A3"}),
        epochs=1,
        max_skipped_steps=1,
        after_step=lambda report, *_: reports.append(report),
    )
    assert [one.accessions for one in state.skipped] == [["A3"]]
    assert [report.skipped for report in reports].count(True) == 1
    assert state.num_summed == 0
    assert state.step == BATCHES
    assert all(tensor.isfinite().all() for tensor in weights(state).values())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(state).items())


def test_too_many_poisoned_rows_end_the_run_with_their_names() -> None:
    state = new_state()
    before = weights(state)
    with pytest.raises(TooManySkippedError, match=r"3 steps, from 1 to 3, .* of the rows A\d+, .* … were not finite"):
        train(state, parts=poisoned(state, {f"A{i}" for i in range(100)}), max_skipped_steps=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(state).items())


def test_a_long_gradient_is_scaled_down() -> None:
    state = new_state()
    reports: list[StepReport] = []
    state.optimizer = torch.optim.SGD([{"params": state.model.parameters(), "ratio": 100.0}])  # 1e-2 is the rate
    state.schedule = lambda _: 1e-2
    before = weights(state)
    train(state, max_grad_norm=1e-3, epochs=1, after_step=lambda report, *_: reports.append(report), parts=one_part)
    change = torch.stack([(tensor - before[name]).norm() for name, tensor in weights(state).items()]).norm()
    assert reports[0].grad_norm > 1e-2
    assert change == pytest.approx(1e-3, rel=1e-2)


def one_part(epoch: int, first: int) -> Iterator[Part[Batch]]:
    yield from islice(parts(epoch, first), 1)


def test_a_run_without_improvement_ends_early() -> None:
    state = new_state()
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    train(state, epochs=9, early_stop_epochs=2, end_epoch=lambda _: state.note_validation(next(losses)), parts=one_part)
    assert (state.epoch, state.best_epoch, state.best_cost) == (4, 2, 2.0)


@pytest.mark.parametrize("name", ["cost", "loss"])  # the latter as earlier versions wrote it
def test_a_run_that_goes_on_knows_its_best_epoch(tmp_path: Path, name: str) -> None:
    state, costs = new_state(), iter([-0.3, -0.4, -0.4])
    train(state, end_epoch=lambda _: state.note_validation(next(costs)), parts=one_part)
    save(tmp_path, state)
    progress = json.loads((tmp_path / PROGRESS).read_text())
    assert progress["best"] == {"cost": -0.4, "epoch": 2}
    (tmp_path / PROGRESS).write_text(json.dumps({**progress, "best": {name: -0.4, "epoch": 2}}))
    again = new_state()
    load_trainer(str(tmp_path), again)
    assert (again.best_cost, again.best_epoch) == (-0.4, 2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_caching_with_dropout_has_the_gradient_of_the_masks_that_it_drew(checkpointing: bool) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    dropout = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    tiny = tiny_model(objectives=OBJECTIVES)
    config = ModelConfig(
        projection_dim=24,
        protein=EncoderConfig(max_tokens=64, config={**shape, **dropout}),
        text=EncoderConfig(max_tokens=32, config={**shape, **dropout, "vocab_size": 120}),
        attention="padded",
        activation_checkpointing=checkpointing,
    )
    tokens = tokenized(tiny, random_pairs(SIZE))
    batches = [make_batch(tiny, tokens.slice(i, 2)) for i in range(0, SIZE, 2)]
    found: list[dict[str, Any]] = []
    for cached in (False, True):
        model = build_model(config, build_architecture(config, tiny.text_tokenizer, OBJECTIVES), seed=0).train()
        torch.manual_seed(7)
        if cached:
            learner_of(model).backward(batches)
        else:  # the same parts, each encoded once, in one graph
            outputs = [model(batch) for batch in batches]
            total_loss(objective_terms(outputs, batches, OBJECTIVES, group=None), OBJECTIVES).backward()
        after = torch.rand(1)  # the next step draws other masks
        found.append({"random": after, **{name: value.grad for name, value in model.named_parameters()}})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_a_wish_to_stop_ends_the_run_after_the_step() -> None:
    state = new_state()
    with pytest.raises(StoppedError):
        train(state, wishes=lambda: Wishes(stop=state.step == 2))
    assert state.step == 3


def test_the_ratio_is_of_the_protein_encoder_and_the_temperature() -> None:
    model = tiny_model(objectives=OBJECTIVES).model
    optimizer = build_optimizer(model, OptimizerConfig(protein_encoder_ratio=0.1))
    set_learning_rate(optimizer, 1.0)
    rates = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    for name, value in model.named_parameters():
        assert rates[id(value)] == (0.1 if name == "logit_scale" or name.startswith("protein_encoder.") else 1.0), name


def rates_of(epoch_ends: list[int], **options: Any) -> list[float]:
    config = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.2, **options)
    schedule = build_schedule(config, epoch_ends=epoch_ends)
    assert schedule(epoch_ends[-1]) == pytest.approx(0.0)
    return [schedule(step) for step in range(epoch_ends[-1])]


def test_schedules_warm_up_and_decay_to_nothing() -> None:
    linear = rates_of([5, 10])
    assert linear == pytest.approx([1 / 3, 2 / 3, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    cosine = rates_of([5, 10], decay="cosine")
    assert cosine[2:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(8)])
    epochs = rates_of([5, 10], decay_by="epoch")
    assert epochs[2:] == pytest.approx([1.0] * 3 + [5 / 8] * 5)


def test_activation_checkpointing_changes_no_bit() -> None:
    tiny = tiny_model(objectives=OBJECTIVES)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    found: list[dict[str, Any]] = []
    for checkpointing in (False, True):
        config = ModelConfig(
            projection_dim=24,
            protein=EncoderConfig(max_tokens=64, config=shape),
            text=EncoderConfig(max_tokens=32, config={**shape, "vocab_size": 120}),
            activation_checkpointing=checkpointing,
        )
        model = build_model(config, build_architecture(config, tiny.text_tokenizer, OBJECTIVES), seed=0).train()
        calls: list[int] = []
        encoder: Any = model.protein_encoder
        encoder.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        learner_of(model).backward([make_batch(tiny, tokenized(tiny, random_pairs(SIZE)))])
        assert len(calls) == 1 + checkpointing  # the layer's inside again in backward
        found.append({name: value.grad for name, value in model.named_parameters()})
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name
