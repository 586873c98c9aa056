"""GC: hand-worked values, duplicates, and several processes against one, in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from workers import run_workers

from protclip import distributed
from protclip.losses.global_contrast import global_contrast

PAIRS, WIDTH = 12, 6


def distinct(num_pairs: int) -> Tensor:
    return torch.arange(num_pairs)[:, None]


@pytest.mark.unit
def test_two_orthogonal_pairs_have_the_loss_worked_by_hand() -> None:
    rows = torch.eye(2, dtype=torch.float64)
    scale = 3.0
    loss = global_contrast(rows, rows, torch.tensor(math.log(scale), dtype=torch.float64), distinct(2), group=None)
    # Each row: -log(e^3 / (e^3 + e^0)).
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-scale)), abs=1e-12)


@pytest.mark.unit
def test_pairs_that_share_a_text_are_no_negatives_of_each_other() -> None:
    rows = normalize(torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)
    scale = torch.tensor(1.0, dtype=torch.float64)
    identity = torch.tensor([[1, 10], [2, 20], [3, 20], [4, 40]])  # sequences differ, two texts are the same
    logits = math.e * rows @ rows.T
    total = 0.0
    for i, excluded in enumerate([[], [2], [1], []]):
        keep = [j for j in range(4) if j not in excluded]
        total += -(logits[i, i] - torch.logsumexp(logits[i, keep], 0)).item()
    loss = global_contrast(rows, rows, scale, identity, group=None)
    assert loss.item() == pytest.approx(total / 4, abs=1e-12)
    assert loss.item() != pytest.approx(global_contrast(rows, rows, scale, distinct(4), group=None).item(), abs=1e-3)


@pytest.mark.unit
def test_scale_is_bounded_and_can_come_back() -> None:
    rows = normalize(torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    at_bound = torch.tensor(math.log(100.0), requires_grad=True)
    loss = global_contrast(rows, rows.flip(0), at_bound, distinct(4), group=None)
    loss.backward()
    assert at_bound.grad is not None
    assert at_bound.grad.item() > 0
    above = global_contrast(rows, rows.flip(0), torch.tensor(9.0), distinct(4), group=None)
    assert above.item() == pytest.approx(loss.item(), rel=1e-6)


class Towers(nn.Module):
    """Two linear towers and a scale: enough to carry every gradient that matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.protein = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        self.text = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        self.logit_scale = nn.Parameter(torch.tensor(1.2, dtype=torch.float64))

    def forward(self, protein: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return normalize(self.protein(protein), dim=-1), normalize(self.text(text), dim=-1), self.logit_scale


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    protein, text = (torch.randn(PAIRS, WIDTH, dtype=torch.float64, generator=generator) for _ in range(2))
    identity = torch.stack([torch.arange(PAIRS), torch.arange(PAIRS) % 9], 1)  # texts repeat across workers
    return protein, text, identity


def gradients(towers: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in towers.named_parameters() if parameter.grad is not None}


def one_process() -> tuple[float, dict[str, Tensor]]:
    towers = Towers()
    protein, text, identity = inputs()
    loss = global_contrast(*towers(protein, text), identity, group=None)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), gradients(towers)


def run_rank(rank: int, group: ProcessGroup, folder: Path, detach: bool) -> None:
    world_size = distributed.world_size(group)
    if detach:
        gather = distributed.gather_rows
        distributed.gather_rows = lambda rows, group: gather(rows.detach(), group)
    towers = Towers()
    network = DistributedDataParallel(towers)
    share = slice(rank * PAIRS // world_size, (rank + 1) * PAIRS // world_size)
    protein, text, identity = (tensor[share] for tensor in inputs())
    loss = global_contrast(*network(protein, text), identity, group=group)
    loss.backward()  # type: ignore[no-untyped-call]
    mean = distributed.mean_over_workers(loss, group)
    if rank == 0:
        torch.save({"loss": mean, **gradients(towers)}, folder / "result.pt")


def several_processes(world_size: int, folder: Path, *, detach: bool = False) -> tuple[float, dict[str, Tensor]]:
    run_workers(run_rank, world_size, folder, detach)
    result: dict[str, Tensor] = torch.load(folder / "result.pt", weights_only=True)
    return result.pop("loss").item(), result


@pytest.mark.ranks
@pytest.mark.parametrize("world_size", [2, 3])
def test_gathered_gradient_is_that_of_one_process(world_size: int, tmp_path: Path) -> None:
    loss, wanted = one_process()
    found_loss, found = several_processes(world_size, tmp_path)
    assert found_loss == pytest.approx(loss, abs=1e-12)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.ranks
def test_a_detached_gather_would_be_noticed(tmp_path: Path) -> None:
    _, wanted = one_process()
    _, found = several_processes(2, tmp_path, detach=True)
    error = (found["protein.weight"] - wanted["protein.weight"]).norm() / wanted["protein.weight"].norm()
    assert error > 0.05
