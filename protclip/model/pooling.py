"""What is pooled: one definition for training, batch embedding and serving.

Shapes: B sequences, L tokens, H hidden width.
"""

from __future__ import annotations

from torch import Tensor


def mean_pool(hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over all tokens of each sequence, special tokens included and padding left out, (B, H).

    Summed in fp32, so that a sequence has the same mean alone and in any padded batch.
    """
    weights_BL1 = mask_BL.unsqueeze(-1).float()
    return (hidden_BLH.float() * weights_BL1).sum(1) / weights_BL1.sum(1)
