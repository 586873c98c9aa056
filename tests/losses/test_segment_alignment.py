"""PDA: values worked by hand, gradients, and what must not move or break it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from protclip.losses.segment_alignment import segment_alignment, segment_alignment_between_proteins
from protclip.model.dual_encoder import Alignment
from protclip.model.dynamic_segments import segment_weights
from protclip.model.prototypes import Prototypes, gumbel_noise

pytestmark = pytest.mark.unit

ONE = torch.tensor(1.0, dtype=torch.float64)
THRESHOLD = 0.3
WINDOW = 3


def alignment(residue: Any, mask: Any, query: Any, present: Any, scale: float = 1.0) -> Alignment:
    numbers = {"dtype": torch.float64}
    return Alignment(
        residue_BLD=torch.as_tensor(residue, **numbers),
        residue_mask_BL=torch.as_tensor(mask),
        property_BKD=torch.as_tensor(query, **numbers),
        present_BK=torch.as_tensor(present),
        text_hash_BK=torch.arange(torch.as_tensor(present).numel()).view(torch.as_tensor(present).shape),
        logit_scale=torch.tensor(math.log(scale), **numbers),
    )


def loss(values: Alignment) -> Tensor:
    return segment_alignment(values, threshold=THRESHOLD, window=1, mean_count=ONE)


def loss_between(values: Alignment, *, sequence_hash: Tensor | None = None, micro_batches: int = 1) -> Tensor:
    """The contrast between proteins, over the sum of their number."""
    count = len(values.present_BK)
    parts = [
        Alignment(*(tensor[rows] for tensor in values[:5]), values.logit_scale)
        for rows in torch.arange(count).tensor_split(micro_batches)
    ]
    hashes = torch.arange(count) if sequence_hash is None else sequence_hash
    return segment_alignment_between_proteins(
        parts, hashes, threshold=THRESHOLD, window=WINDOW, mean_count=ONE, group=None
    )


BOTH = pytest.mark.parametrize("loss", [loss, loss_between])


def random_alignment(num_pairs: int = 5, length: int = 9, width: int = 6) -> Alignment:
    generator = torch.Generator().manual_seed(0)
    residue = torch.randn(num_pairs, length, width, dtype=torch.float64, generator=generator)
    query = torch.randn(num_pairs, 4, width, dtype=torch.float64, generator=generator)
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
    lengths = torch.tensor([9, 5, 3, 7, 2])
    return alignment(residue, torch.arange(length) < lengths[:, None], query, present, scale=3.0)


def by_loops(values: Alignment) -> float:
    """The formulas of the module, one protein and one property at a time."""
    total = 0.0
    for i in range(len(values.present_BK)):
        z = values.residue_BLD[i, values.residue_mask_BL[i]]
        q = values.property_BKD[i, values.present_BK[i]]
        if len(q) < 2:
            continue
        rows = []
        for k in range(len(q)):
            s = z @ q[k]
            s = (s - s.min()) / (s.max() - s.min())
            w = torch.where(s >= THRESHOLD, s, 0.0)
            d = (w / w.sum()) @ z
            rows.append(d / d.norm())
        logits = values.logit_scale.exp() * torch.stack(rows) @ (q / q.norm(dim=1, keepdim=True)).T
        right = torch.arange(len(q))
        both = (torch.nn.functional.cross_entropy(x, right) for x in (logits, logits.T))
        total += 0.5 * sum(value.item() for value in both)
    return total


def test_weights_are_those_worked_by_hand() -> None:
    residues = torch.tensor([[[7.0], [1.0], [3.0], [1.8], [5.0], [7.0]]])  # first and last are no residues
    mask = torch.tensor([[False, True, True, True, True, False]])
    weights = segment_weights(torch.tensor([[[2.0], [-1.0], [0.0]]]), residues, mask, threshold=THRESHOLD, window=1)[0]
    # Scaled: 0, 1/2, 0.2 (below the threshold), 1; for the opposite property 1, 1/2, 0.8, 0; constant for the third.
    assert weights[0].tolist() == pytest.approx([0, 0, 1 / 3, 0, 2 / 3, 0])
    assert weights[1].tolist() == pytest.approx([0, 1 / 2.3, 0.5 / 2.3, 0.8 / 2.3, 0, 0])
    assert weights[2].tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25, 0])


def test_two_orthogonal_properties_have_the_loss_worked_by_hand() -> None:
    scale = 3.0
    rows = [[[9.0, 9.0], [2.0, 0.0], [0.0, 5.0], [9.0, 9.0]]]
    query = [[[1.0, 0.0], [0.0, 4.0], [8.0, 8.0], [8.0, 8.0]]]
    values = alignment(rows, [[False, True, True, False]], query, [[True, True, False, False]], scale)
    assert loss(values).item() == pytest.approx(math.log(1 + math.exp(-scale)), abs=1e-12)


def test_all_proteins_at_once_are_the_sum_of_each_by_itself() -> None:
    values = random_alignment()
    assert loss(values).item() == pytest.approx(by_loops(values), abs=1e-12)


def test_a_window_averages_the_residues_round_each_one() -> None:
    residues = torch.tensor([[[7.0], [0.0], [3.0], [9.0], [0.0], [7.0]]])
    mask = torch.tensor([[False, True, True, True, True, False]])
    weights = segment_weights(torch.tensor([[[1.0]]]), residues, mask, threshold=THRESHOLD, window=3)[0]
    # Means 1.5, 4, 4, 4.5 of the residues alone; scaled 0, 5/6, 5/6, 1.
    assert weights[0].tolist() == pytest.approx([0, 0, 5 / 16, 5 / 16, 6 / 16, 0])


def test_the_contrast_between_proteins_is_that_of_loops() -> None:
    values = random_alignment()
    values.text_hash_BK[4, 2] = values.text_hash_BK[0, 2]  # one text of two pairs
    sequence_hash = torch.tensor([0, 1, 2, 3, 1])  # one sequence of two pairs
    found = loss_between(values, sequence_hash=sequence_hash).item()
    assert found == pytest.approx(between_by_loops(values, sequence_hash), abs=1e-12)
    assert found != pytest.approx(loss_between(values).item(), abs=1e-3)


def between_by_loops(values: Alignment, sequence_hash: Tensor) -> float:
    """The formulas, one pair of a protein and a text at a time."""
    count, num_kinds = values.present_BK.shape

    def logit(b: int, n: int, k: int) -> float:
        z = values.residue_BLD[b, values.residue_mask_BL[b]]
        around = [z[max(0, j - WINDOW // 2) : j + WINDOW // 2 + 1].mean(0) for j in range(len(z))]
        s = torch.stack(around) @ values.property_BKD[n, k]
        s = (s - s.min()) / (s.max() - s.min()) if len(z) > 2 else torch.ones_like(s)  # two share each window
        w = torch.where(s >= THRESHOLD, s, 0.0)
        d = (w / w.sum()) @ z
        return (values.logit_scale.exp() * torch.cosine_similarity(d, values.property_BKD[n, k], dim=0)).item()

    total = 0.0
    for b in range(count):
        terms = []
        for k in range(num_kinds):
            if not values.present_BK[b, k]:
                continue
            others = [
                n
                for n in range(count)
                if values.present_BK[n, k]
                and values.text_hash_BK[n, k] != values.text_hash_BK[b, k]
                and sequence_hash[n] != sequence_hash[b]
            ]
            texts = torch.tensor([logit(b, n, k) for n in (b, *others)], dtype=torch.float64)
            proteins = torch.tensor([logit(n, b, k) for n in (b, *others)], dtype=torch.float64)
            terms.append(0.5 * (texts.logsumexp(0) + proteins.logsumexp(0)) - texts[0])
        total += torch.stack(terms).double().mean().item() if terms else 0.0
    return total


@pytest.mark.parametrize("micro_batches", [2, 5])
def test_micro_batches_contrast_the_same_proteins(micro_batches: int) -> None:
    values = random_alignment()
    wanted = loss_between(values).item()
    assert loss_between(values, micro_batches=micro_batches).item() == pytest.approx(wanted, abs=1e-12)


@BOTH
def test_gradient_is_the_numerical_one(loss: Callable[[Alignment], Tensor]) -> None:
    few = torch.tensor([0, 1, 4])  # with four, two and three properties
    whole = random_alignment(length=6, width=3)
    values = Alignment(*(tensor[few] for tensor in whole[:5]), whole.logit_scale)
    leaves = [values.residue_BLD, values.property_BKD, values.logit_scale]
    for leaf in leaves:
        leaf.requires_grad_()

    def value(residue: Tensor, query: Tensor, scale: Tensor) -> Tensor:
        return loss(values._replace(residue_BLD=residue, property_BKD=query, logit_scale=scale))

    assert torch.autograd.gradcheck(value, leaves)


@BOTH
def test_padding_order_and_absent_properties_change_nothing(loss: Callable[[Alignment], Tensor]) -> None:
    values = random_alignment()
    wanted = loss(values).item()
    padded = values._replace(
        residue_BLD=torch.nn.functional.pad(values.residue_BLD, (0, 0, 0, 4), value=77.0),
        residue_mask_BL=torch.nn.functional.pad(values.residue_mask_BL, (0, 4)),
    )
    noisy = values._replace(
        property_BKD=torch.where(values.present_BK[..., None], values.property_BKD, 33.0),
        residue_BLD=torch.where(values.residue_mask_BL[..., None], values.residue_BLD, -55.0),
    )
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = Alignment(*(tensor[order] for tensor in values[:5]), values.logit_scale)
    for other in (padded, noisy, shuffled):
        assert loss(other).item() == pytest.approx(wanted, abs=1e-12)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["identical residues", "one residue", "zeros", "one property", "no property", "none"])
def test_degenerate_proteins_are_finite_with_finite_gradients(
    case: str, dtype: torch.dtype, loss: Callable[[Alignment], Tensor]
) -> None:
    values = random_alignment()
    residue, mask, query, present, _, scale = (tensor.clone() for tensor in values)
    if case == "identical residues":
        residue[:] = residue[:, :1]
    elif case == "one residue":
        mask[:, 1:] = False
    elif case == "zeros":
        residue[:], query[:] = 0.0, 0.0
    elif case == "one property":
        present[:] = torch.tensor([True, False, False, False])
    elif case == "no property":
        present[:] = False
    else:
        mask[:] = False
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (residue, query, scale)]
    found = loss(
        Alignment(
            residue_BLD=leaves[0],
            residue_mask_BL=mask,
            property_BKD=leaves[1],
            present_BK=present,
            text_hash_BK=values.text_hash_BK,
            logit_scale=leaves[2],
        )
    )
    found.backward()  # type: ignore[no-untyped-call]
    assert found.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    if case == "no property" or (case == "one property" and loss is not loss_between):
        assert found.item() == 0.0


def test_prototypes_are_mixed_as_worked_by_hand() -> None:
    bank = Prototypes(2, 2, temperature=0.5)
    with torch.no_grad():
        bank.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    # Dot products ln 3 / 2 and 0, divided by τ: weights 3/4 and 1/4.
    found = bank(torch.tensor([[math.log(3) / 2, 0.0]]), None)
    assert found[0].tolist() == pytest.approx([0.75, 0.25])


def test_prototype_gradient_is_the_numerical_one() -> None:
    torch.manual_seed(0)
    bank = Prototypes(5, 3, temperature=0.9).double()
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    key = torch.arange(4)

    def mix(rows: Tensor, weight: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(bank, {"weight": weight}, (rows, key))
        return found

    assert torch.autograd.gradcheck(mix, (rows, bank.weight))


def test_noise_is_gumbels_and_a_function_of_its_key() -> None:
    noise = gumbel_noise(torch.arange(400), 500)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    assert torch.corrcoef(noise[:20]).fill_diagonal_(0).abs().max() < 0.25
    assert torch.equal(gumbel_noise(torch.tensor([7]), 30)[0], noise[7, :30])
