"""Steps in bfloat16: who decides it, and what of a step is in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_model import make_batch, random_pairs, tiny_model, tokenized
from torch import Tensor

from protclip.config import ObjectivesConfig, OptimizerConfig
from protclip.inputs import DTYPES, Dtype
from protclip.losses.total import objective_terms, total_loss
from protclip.metrics.objectives import validation_terms
from protclip.model import inference, precision
from protclip.pretraining.learner import DualEncoderLearner, part_of
from protclip.train.optim import build_optimizer
from protclip.train.state import TrainState
from protclip.train.step import Wishes, train_step
from protclip.trained_model import ProtCLIP

pytestmark = pytest.mark.unit

OBJECTIVES = ObjectivesConfig(num_prototypes=16)


def model_of(dtype: Dtype) -> ProtCLIP:
    model = tiny_model(objectives=OBJECTIVES)
    model.model.precision = dtype
    return model


@pytest.mark.parametrize("fast", [False, True])
def test_the_hardware_decides_unless_it_is_said(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "has_fast_bfloat16", lambda: fast)
    assert precision.decided("auto", use_gpu=False) == ("bfloat16" if fast else "float32")
    assert precision.decided("auto", use_gpu=True) == "bfloat16"
    for dtype in DTYPES:
        assert precision.decided(dtype, use_gpu=True) == precision.decided(dtype, use_gpu=False) == dtype


def test_a_step_in_bfloat16_has_the_losses_and_gradients_of_float32() -> None:
    found: dict[Dtype, tuple[dict[str, float], dict[str, Tensor]]] = {}
    for dtype in DTYPES:
        model = model_of(dtype)
        network = model.model.train()
        batch = make_batch(model, tokenized(model, random_pairs(8)))
        outputs = network(batch)
        tensors = [value for value in (*outputs[:-1], *(outputs.alignment or ())) if value.is_floating_point()]
        assert {value.dtype for value in tensors} == {torch.float32}
        terms = objective_terms([outputs], [batch], OBJECTIVES, group=None)
        total_loss(terms, OBJECTIVES).backward()  # type: ignore[union-attr]
        gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
        assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
        found[dtype] = {name: term.item() for name, term in terms.items()}, gradients
    (wanted, exact), (terms, gradients) = found["float32"], found["bfloat16"]
    assert terms != wanted
    assert terms == pytest.approx(wanted, rel=5e-3)
    assert gradients.keys() == exact.keys()
    flat, flat_exact = (torch.cat([one[name].flatten() for name in exact]) for one in (gradients, exact))
    assert torch.cosine_similarity(flat, flat_exact, dim=0) >= 0.999


@pytest.mark.parametrize("dtype", DTYPES)
def test_validation_and_the_search_for_bad_rows_compute_as_the_step_does(dtype: Dtype) -> None:
    model = model_of(dtype)
    network: Any = model.model
    batch = make_batch(model, tokenized(model, random_pairs(8)))
    seen: list[torch.dtype] = []
    network.protein_encoder.encoder.layer[0].output.dense.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    state = TrainState(model=network, optimizer=build_optimizer(network, OptimizerConfig()), schedule=lambda _: 1e-5)
    learner = DualEncoderLearner(network, network, None)
    train_step(state, learner, part_of([batch], [], network), group=None, max_grad_norm=1.0, wishes=Wishes())
    assert learner.bad_rows([batch]) == []
    validation_terms(network.eval(), [batch], group=None)
    assert seen == [getattr(torch, dtype)] * 3
