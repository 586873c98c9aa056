"""The collectives of training; ``group=None`` means a single process: nothing is exchanged.

This file and ``protclip.layout`` alone know torch.distributed.
Shapes: B rows of this worker, N rows of all workers in rank order, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def rank(group: ProcessGroup | None) -> int:
    """This process's place in the group."""
    return 0 if group is None else dist.get_rank(group)


def world_size(group: ProcessGroup | None) -> int:
    """Processes in the group."""
    return 1 if group is None else dist.get_world_size(group)


def gather_rows(rows_BD: Tensor, group: ProcessGroup | None) -> Tensor:
    """The rows of all workers, (N, D), with gradient back to the worker that owns each row.

    Every worker must bring the same number of rows. In backward the gradients that all workers have for a row are
    summed, so that under DDP's averaging the step is that of one process with all rows.
    """
    if group is None:
        return rows_BD
    gathered: Tensor = _GatherRows.apply(rows_BD, group)  # type: ignore[no-untyped-call]
    return gathered


def gather_uneven_rows(rows_BD: Tensor, group: ProcessGroup | None) -> Tensor:
    """The rows of all workers, (N, D), where workers may bring different numbers of rows; without gradient."""
    if group is None:
        return rows_BD
    counts = [torch.zeros(1, dtype=torch.int64, device=rows_BD.device) for _ in range(world_size(group))]
    dist.all_gather(counts, torch.tensor([len(rows_BD)], device=rows_BD.device), group=group)
    longest = int(max(count.item() for count in counts))
    padded = rows_BD.new_zeros((longest, *rows_BD.shape[1:]))
    padded[: len(rows_BD)] = rows_BD
    blocks = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(blocks, padded, group=group)
    return torch.cat([block[: int(count.item())] for block, count in zip(blocks, counts, strict=True)])


def mean_over_workers(value: Tensor, group: ProcessGroup | None) -> Tensor:
    """The mean of each value over the workers, without gradient."""
    if group is None:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total, group=group)
    return total / world_size(group)


def gather_values(values: Sequence[str], group: ProcessGroup | None) -> list[str]:
    """The strings of all workers, in the order of the ranks."""
    if group is None:
        return list(values)
    lists: list[list[str]] = [[] for _ in range(world_size(group))]
    dist.all_gather_object(lists, list(values), group=group)
    return [value for some in lists for value in some]


def from_first_worker(value: str | None, group: ProcessGroup | None) -> str | None:
    """What rank 0 says."""
    if group is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        ctx.num_rows = len(rows_BD)
        blocks = [torch.empty_like(rows_BD) for _ in range(world_size(group))]
        dist.all_gather(blocks, rows_BD.contiguous(), group=group)
        return torch.cat(blocks)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad_ND = grads[0].contiguous().clone()
        dist.all_reduce(grad_ND, group=ctx.group)
        start = rank(ctx.group) * ctx.num_rows
        return grad_ND[start : start + ctx.num_rows], None
