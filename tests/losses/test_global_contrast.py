"""GC: hand-worked values, duplicates, and several processes against one, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.functional import cross_entropy, normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from workers import run_workers

from protclip import distributed
from protclip.losses import global_contrast as tiled
from protclip.losses.global_contrast import global_contrast
from protclip.model.dual_encoder import scale

PAIRS, WIDTH = 12, 6
PREFIXES = (1, 4, WIDTH)


def distinct(num_pairs: int) -> Tensor:
    return torch.arange(num_pairs)[:, None]


def whole_matrix(
    protein: Tensor, text: Tensor, logit_scale: Tensor, identity: Tensor, prefixes: Sequence[int] = (WIDTH,)
) -> Tensor:
    """The loss as its formula says it, in one process."""
    cut = [[normalize(rows[:, :width], dim=-1) for rows in (protein, text)] for width in prefixes]
    return torch.stack([contrast_of(*rows, logit_scale, identity) for rows in cut]).mean()


def contrast_of(protein: Tensor, text: Tensor, logit_scale: Tensor, identity: Tensor) -> Tensor:
    own = torch.arange(len(protein))
    neither = (identity[:, None] == identity[None]).any(-1).fill_diagonal_(False)
    logits = (scale(logit_scale) * protein @ text.T).masked_fill(neither, -torch.inf)
    return 0.5 * (cross_entropy(logits, own) + cross_entropy(logits.T, own))


@pytest.mark.unit
@pytest.mark.parametrize("rows_per_tile", [1, 5, 37])
@pytest.mark.parametrize("prefixes", [(), PREFIXES])
def test_tiles_have_loss_and_gradients_of_the_whole_matrix(
    prefixes: tuple[int, ...], rows_per_tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_LOGITS", 37 * rows_per_tile)
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(37, WIDTH, dtype=torch.float64, generator=generator) for _ in range(2)]
    identity = torch.stack([torch.arange(37) % 31, torch.arange(37) % 20], 1)  # sequences and texts repeat
    results = []
    for loss_of in (
        lambda *inputs: whole_matrix(*inputs, prefixes or (WIDTH,)),
        lambda *inputs: global_contrast(*inputs, prefixes=prefixes, group=None),
    ):
        leaves = [row.clone().requires_grad_() for row in rows]
        logit_scale = torch.tensor(2.3, dtype=torch.float64, requires_grad=True)
        loss = loss_of(*(normalize(leaf, dim=-1) for leaf in leaves), logit_scale, identity)
        (3 * loss).backward()
        results.append([loss, *(leaf.grad for leaf in leaves), logit_scale.grad])
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.unit
def test_one_prefix_of_the_whole_width_is_the_plain_contrast_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [normalize(torch.randn(PAIRS, WIDTH, generator=generator), dim=-1) for _ in range(2)]
    identity = distinct(PAIRS)

    def plain(protein: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
        factor = scale(logit_scale)
        to_texts = tiled._contrast(protein, text, factor, identity, identity, 0)
        return 0.5 * (to_texts + tiled._contrast(text, protein, factor, identity, identity, 0))

    results = []
    for loss_of in (
        plain,
        lambda *inputs: global_contrast(*inputs, identity, group=None),
        lambda *inputs: global_contrast(*inputs, identity, prefixes=(WIDTH,), group=None),
    ):
        leaves = [*(row.clone().requires_grad_() for row in rows), torch.tensor(2.3, requires_grad=True)]
        loss = loss_of(*leaves)
        loss.backward()
        results.append([loss, *(leaf.grad for leaf in leaves)])
    for wanted, *found in zip(*results, strict=True):
        assert all(torch.equal(wanted, one) for one in found)


@pytest.mark.unit
def test_the_mean_over_prefixes_is_the_one_worked_by_hand() -> None:
    """Of two pairs, the first number is the same of all: its contrast is log 2."""
    rows = normalize(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), dim=-1)
    scale = torch.tensor(math.log(3.0), dtype=torch.float64)
    loss = global_contrast(rows, rows, scale, distinct(2), prefixes=(1, 2), group=None)
    # Whole rows are orthogonal: -log(e^3 / (e^3 + e^0)).
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-3.0))) / 2, abs=1e-12)


class Largest(TorchDispatchMode):
    """Remembers the numbers of the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        tensors = out if isinstance(out, tuple | list) else [out]
        self.numel = max(self.numel, *(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor)), 0)
        return out


@pytest.mark.unit
def test_no_tensor_is_larger_than_a_tile_or_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_LOGITS", 4096)
    protein, text = (normalize(torch.randn(512, WIDTH), dim=-1).requires_grad_() for _ in range(2))
    with Largest() as largest:
        global_contrast(protein, text, torch.tensor(2.0), distinct(512), group=None).backward()
    assert largest.numel == 4096  # of 262,144 logits


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


def one_process(prefixes: tuple[int, ...] = (WIDTH,)) -> tuple[float, dict[str, Tensor]]:
    towers = Towers()
    protein, text, identity = inputs()
    loss = whole_matrix(*towers(protein, text), identity, prefixes)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), gradients(towers)


def run_rank(rank: int, group: ProcessGroup, folder: Path, prefixes: tuple[int, ...], detach: bool) -> None:
    world_size = distributed.world_size(group)
    tiled.TILE_LOGITS = 3 * PAIRS  # several tiles on each worker, of which the last is not full
    gathered: list[int] = []
    gather = distributed.gather_rows

    def counted(rows: Tensor, group: ProcessGroup | None) -> Tensor:
        gathered.append(len(rows))
        return gather(rows.detach() if detach else rows, group)

    distributed.gather_rows = counted
    towers = Towers()
    network = DistributedDataParallel(towers)
    share = slice(rank * PAIRS // world_size, (rank + 1) * PAIRS // world_size)
    protein, text, identity = (tensor[share] for tensor in inputs())
    loss = global_contrast(*network(protein, text), identity, prefixes=prefixes, group=group)
    loss.backward()  # type: ignore[no-untyped-call]
    mean = distributed.mean_over_workers(loss, group)
    assert len(gathered) == 3  # proteins, texts and identities, however many prefixes
    if rank == 0:
        torch.save({"loss": mean, **gradients(towers)}, folder / "result.pt")


def several_processes(
    world_size: int, folder: Path, *, prefixes: tuple[int, ...] = (), detach: bool = False
) -> tuple[float, dict[str, Tensor]]:
    run_workers(run_rank, world_size, folder, prefixes, detach)
    result: dict[str, Tensor] = torch.load(folder / "result.pt", weights_only=True)
    return result.pop("loss").item(), result


@pytest.mark.ranks
@pytest.mark.parametrize(("world_size", "prefixes"), [(2, ()), (3, ()), (2, PREFIXES)])
def test_gathered_gradient_is_that_of_one_process(world_size: int, prefixes: tuple[int, ...], tmp_path: Path) -> None:
    loss, wanted = one_process(prefixes or (WIDTH,))
    found_loss, found = several_processes(world_size, tmp_path, prefixes=prefixes)
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
