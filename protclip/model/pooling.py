"""What is pooled: one definition for training, batch embedding and serving.

Shapes: S sequences, T tokens of all of them in one row, B items of a batch, L tokens of the longest, H hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_pool(hidden_TH: Tensor, length_S: Tensor) -> Tensor:
    """Mean over all tokens of each sequence, special tokens included, (S, H).

    Summed in fp32 at least, so that a sequence has the same mean alone and in any company.

    Args:
        hidden_TH: the sequences' tokens, one sequence after the other.
        length_S: tokens of each, T in all.
    """
    return torch.segment_reduce(at_least_fp32(hidden_TH), "mean", lengths=length_S, unsafe=True)


def residue_positions(mask_BL: Tensor) -> Tensor:
    """True at the residues of tokenised proteins, (B, L): all tokens but the first and the last of each."""
    inner_BL = torch.zeros_like(mask_BL)
    inner_BL[:, 1:-1] = mask_BL[:, 2:]
    return inner_BL


def at_least_fp32(x: Tensor) -> Tensor:
    """The tensor in fp32, or as it is where it is of higher precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
