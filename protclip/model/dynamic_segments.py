"""PDA's dynamic segments: which residues of a protein a property is of.

    S_kj = q_k · mean z_i, |i − j| ≤ w/2                    property k, residue j of one protein; window w = 1
    Ŝ_kj = (S_kj − min_j S_kj) / (max_j S_kj − min_j S_kj)
    W_kj ∝ Ŝ_kj where Ŝ_kj ≥ γ, else 0;   Σ_j W_kj = 1

Source: Zhou et al. 2025 (arXiv:2412.20014); the window is ours. ``protclip.losses.segment_alignment`` trains them.
Shapes: B pairs, L tokens, K properties of a pair, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

_EPSILON = 1e-6
"""Rows whose similarities differ by less, relative to their size, are constant."""


def segment_weights(
    property_BKD: Tensor, residue_BLD: Tensor, residue_mask_BL: Tensor, *, threshold: float, window: int
) -> Tensor:
    """W (B, K, L): how much of each residue is in each property's dynamic segment.

    Zero at special tokens and padding. The most similar residue is always in; where all are equally similar (one
    residue alone, or identical ones) all have the same weight.
    """
    valid_B1L = residue_mask_BL[:, None, :]
    similarity_BKL = property_BKD @ _smoothed(residue_BLD, residue_mask_BL, window).mT
    largest = torch.finfo(similarity_BKL.dtype).max
    high_BK1 = similarity_BKL.masked_fill(~valid_B1L, -largest).amax(-1, keepdim=True)
    low_BK1 = similarity_BKL.masked_fill(~valid_B1L, largest).amin(-1, keepdim=True)
    size_BK1 = torch.maximum(high_BK1.detach().abs(), low_BK1.detach().abs())
    varies_BK1 = (high_BK1 - low_BK1).detach() > _EPSILON * size_BK1
    range_BK1 = torch.where(varies_BK1, high_BK1 - low_BK1, 1.0)
    scaled_BKL = torch.where(varies_BK1 & valid_B1L, (similarity_BKL - low_BK1) / range_BK1, 1.0)
    kept_BKL = scaled_BKL * (valid_B1L & (scaled_BKL >= threshold))
    total_BK1 = kept_BKL.sum(-1, keepdim=True)
    return kept_BKL / torch.where(total_BK1 > 0, total_BK1, 1.0)


def _smoothed(residue_BLD: Tensor, residue_mask_BL: Tensor, window: int) -> Tensor:
    """The mean of the residues in the window round each one, what is no residue left out."""
    if window == 1:
        return residue_BLD
    valid_BL1 = residue_mask_BL[..., None].to(residue_BLD.dtype)
    summed = torch.cat([residue_BLD * valid_BL1, valid_BL1], dim=-1)
    mean_BLX = avg_pool1d(summed.mT, window, stride=1, padding=window // 2).mT
    share_BL1 = mean_BLX[..., -1:]
    return mean_BLX[..., :-1] / torch.where(share_BL1 > 0, share_BL1, 1.0)
