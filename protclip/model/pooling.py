"""What is pooled: one definition for training, batch embedding and serving.

Shapes: B sequences, L tokens, H hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_pool(hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over all tokens of each sequence, special tokens included and padding left out, (B, H).

    Summed in fp32 at least, so that a sequence has the same mean alone and in any padded batch.
    """
    hidden_BLH = at_least_fp32(hidden_BLH)
    weights_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLH.dtype)
    return (hidden_BLH * weights_BL1).sum(1) / weights_BL1.sum(1)


def residue_positions(mask_BL: Tensor) -> Tensor:
    """True at the residues of tokenised proteins, (B, L): all tokens but the first and the last of each."""
    inner_BL = torch.zeros_like(mask_BL)
    inner_BL[:, 1:-1] = mask_BL[:, 2:]
    return inner_BL


def at_least_fp32(x: Tensor) -> Tensor:
    """The tensor in fp32, or as it is where it is of higher precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
