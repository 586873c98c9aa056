"""GC: the global contrast between proteins and biotexts.

    L_GC = ½ · [CE(e^s · P·Tᵀ, diag) + CE(e^s · T·Pᵀ, diag)]
    L_GC over prefixes = 1/F · Σ_f L_GC(unit(P[:, :f]), unit(T[:, :f]))

Source: Zhou et al. 2025 (arXiv:2412.20014); symmetric InfoNCE as in CLIP (Radford et al. 2021, Fig. 3). The matrix of
logits is never whole: it is made in tiles of rows, each of which leaves its part of the loss and of the gradient behind
(as in Inf-CL, Cheng et al. 2024, arXiv:2410.17243, with the tiles as wide as the global batch). Prefixes: Matryoshka
representation learning (Kusupati et al. 2022, arXiv:2205.13147), with the mean in place of its weighted sum.
Shapes: B pairs of this worker, N = B · workers pairs in all, R rows of a tile, D width, F numbers of a prefix,
K identities of a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup
from torch.nn.functional import normalize

from protclip import distributed
from protclip.model.dual_encoder import scale

TILE_LOGITS = 2**22
"""Logits of a tile, 16 MB in fp32; small batches are one tile."""


def global_contrast(
    protein_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Tensor,
    identity_BK: Tensor,
    *,
    prefixes: Sequence[int] = (),
    group: ProcessGroup | None,
) -> Tensor:
    """Symmetric InfoNCE over the pairs of all workers.

    Row i of both inputs is a pair. Every row that shares no identity with it, here or on another worker, is a
    negative; a row that does (the same biotext, or the same sequence) is neither positive nor negative. It needs
    memory for the gathered rows and their gradients, and for one tile of logits.

    Args:
        protein_BD: unit-length embeddings, fp32 at least; every worker brings the same number of rows.
        text_BD: likewise.
        logit_scale: s, the log of the inverse temperature; e^s is at most 100.
        identity_BK: integers; rows that are equal in any column are not contrasted.
        prefixes: the contrast is the mean over those of the first so many numbers, brought to unit length anew; none
            for that of the whole rows. Rows are gathered once, whole, however many prefixes there are.
        group: the workers, or None for one process.

    Returns:
        The mean over this worker's rows. With DDP's average over workers the step is that of the mean over all N rows.
    """
    all_protein_ND = distributed.gather_rows(protein_BD, group)
    all_text_ND = distributed.gather_rows(text_BD, group)
    all_identity_NK = distributed.gather_rows(identity_BK, group)
    start = distributed.rank(group) * len(protein_BD)
    factor = scale(logit_scale)
    losses = []
    for width in prefixes or (protein_BD.shape[1],):
        protein_BF, text_BF, all_protein_NF, all_text_NF = (
            _unit_prefix(rows, width) for rows in (protein_BD, text_BD, all_protein_ND, all_text_ND)
        )
        to_texts = _contrast(protein_BF, all_text_NF, factor, identity_BK, all_identity_NK, start)
        to_proteins = _contrast(text_BF, all_protein_NF, factor, identity_BK, all_identity_NK, start)
        losses.append(0.5 * (to_texts + to_proteins))
    return torch.stack(losses).mean()


def _unit_prefix(row_BD: Tensor, width: int) -> Tensor:
    """The first numbers of each row, unit length; rows that are taken whole have it already."""
    return row_BD if width == row_BD.shape[1] else normalize(row_BD[:, :width], dim=-1)


def _contrast(
    row_BD: Tensor, all_ND: Tensor, factor: Tensor, identity_BK: Tensor, all_identity_NK: Tensor, start: int
) -> Tensor:
    """Mean cross-entropy of each row against all rows of the other side; its own is ``start`` + its number."""
    loss: Tensor = _TiledContrast.apply(  # type: ignore[no-untyped-call]
        row_BD, all_ND, factor, identity_BK, all_identity_NK, start
    )
    return loss


class _TiledContrast(torch.autograd.Function):
    """Loss and gradient of a tile while its logits are there: backward only scales what forward has summed."""

    @staticmethod
    def forward(
        ctx: Any,
        row_BD: Tensor,
        all_ND: Tensor,
        factor: Tensor,
        identity_BK: Tensor,
        all_identity_NK: Tensor,
        start: int,
    ) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad)
        grad_row_BD, grad_all_ND = torch.empty_like(row_BD), torch.zeros_like(all_ND)
        own_B = torch.arange(start, start + len(row_BD), device=row_BD.device)
        loss = row_BD.new_zeros(())
        tile_rows = max(1, TILE_LOGITS // len(all_ND))
        for first in range(0, len(row_BD), tile_rows):
            tile = slice(first, first + tile_rows)
            row_RD, own_R = factor * row_BD[tile], own_B[tile, None]
            logits_RN = row_RD @ all_ND.T
            own_logit_R1 = logits_RN.gather(1, own_R)
            neither_RN = _shares_identity(identity_BK[tile], all_identity_NK)
            logits_RN.masked_fill_(neither_RN, -torch.inf).scatter_(1, own_R, own_logit_R1)
            total_R1 = logits_RN.logsumexp(1, keepdim=True)
            loss += (total_R1 - own_logit_R1).sum()
            if needs_gradient:
                # d loss / d logits = softmax − one-hot, for the sum over rows.
                grad_RN = logits_RN.sub_(total_R1).exp_()
                grad_RN.scatter_add_(1, own_R, torch.full_like(own_logit_R1, -1.0))
                grad_row_BD[tile] = grad_RN @ all_ND
                grad_all_ND.addmm_(grad_RN.T, row_RD)
        if needs_gradient:
            # With logits = factor · row · allᵀ: rows get factor · G · all, and the factor Σ row · (G · all).
            grad_factor = (row_BD * grad_row_BD).sum()
            ctx.save_for_backward(grad_row_BD.mul_(factor), grad_all_ND, grad_factor)
            ctx.num_rows = len(row_BD)
        return loss / len(row_BD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight = grads[0] / ctx.num_rows
        return (*(weight * saved for saved in ctx.saved_tensors), None, None, None)


def _shares_identity(identity_RK: Tensor, all_identity_NK: Tensor) -> Tensor:
    """Whether any column is equal, (R, N)."""
    shares_RN = identity_RK[:, :1] == all_identity_NK[:, 0]
    for k in range(1, identity_RK.shape[1]):
        shares_RN |= identity_RK[:, k : k + 1] == all_identity_NK[:, k]
    return shares_RN
