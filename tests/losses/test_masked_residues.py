"""MLM and BSR: values worked by hand, gradients, and what the biotext gives to a masked segment."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from protclip.data.collate import NO_TARGET
from protclip.losses.masked_residues import masked_residues
from protclip.losses.segment_reconstruction import segment_reconstruction
from protclip.model.objective_heads import SegmentAttention

pytestmark = pytest.mark.unit

LOSSES = pytest.mark.parametrize("loss", [masked_residues, segment_reconstruction])


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@LOSSES
def test_value_worked_by_hand_and_places_without_a_target_are_nothing(loss) -> None:  # type: ignore[no-untyped-def]
    logits = torch.zeros(2, 2, 2, dtype=torch.float64)
    logits[0, 0, 1] = math.log(3)  # 3/4 for token 1
    logits[0, 1, 0] = 50.0  # no target here
    target = torch.tensor([[1, NO_TARGET], [0, NO_TARGET]])
    wanted = (-math.log(3 / 4) - math.log(1 / 2)) / 2
    assert loss(logits, target, mean_count=number(2)).item() == pytest.approx(wanted, abs=1e-15)
    nothing = loss(logits, torch.full((2, 2), NO_TARGET), mean_count=number(1))
    assert nothing.item() == 0.0


@LOSSES
def test_gradient_is_the_numerical_one(loss) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randint(0, 5, (3, 4), generator=generator)
    target[1, 2:] = NO_TARGET
    assert torch.autograd.gradcheck(lambda x: loss(x, target, mean_count=number(10)), logits)


def attention(dim: int) -> SegmentAttention:
    torch.manual_seed(0)
    return SegmentAttention(dim).double()


def test_a_masked_place_reads_its_biotext_as_worked_by_hand() -> None:
    module = attention(4)
    with torch.no_grad():
        for layer in (module.query, module.key, module.value):
            layer.weight.copy_(torch.eye(4))
            layer.bias.zero_()
    residue = torch.tensor([[[2.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)  # / √4 = 1
    text = torch.tensor([[[math.log(3), 1.0, 0, 0], [0.0, 5.0, 0, 0], [9.0, 9.0, 9, 9]]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])  # the third token is padding
    found = module(residue, text, mask)[0, 0]
    assert found.tolist() == pytest.approx([0.75 * math.log(3), 0.75 * 1 + 0.25 * 5, 0, 0], abs=1e-12)


def test_attention_gradient_is_the_numerical_one() -> None:
    module = attention(3)
    generator = torch.Generator().manual_seed(1)
    residue = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    text = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    names, values = zip(*module.named_parameters(), strict=True)

    def attend(residue: Tensor, text: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (residue, text, mask))
        return found

    assert torch.autograd.gradcheck(attend, (residue, text, *values))
