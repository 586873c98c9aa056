"""In which numbers a training step computes: decided once for a run, the same on all of its workers."""

from __future__ import annotations

from typing import Literal

import torch

from protclip.inputs import Dtype
from protclip.model import inference

Precision = Literal["auto", "float32", "bfloat16"]
"""As it is asked for; ``auto`` leaves it to the hardware."""


def decided(precision: Precision, *, use_gpu: bool) -> Dtype:
    """What is asked for, or what is fast: bfloat16 on GPUs and on processors with instructions for it.

    The processor is this one's. Who starts workers asks, not they: on machines of several kinds they would answer
    differently.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if use_gpu or inference.has_fast_bfloat16() else "float32"


def autocast(device: torch.device, dtype: Dtype) -> torch.autocast:
    """Matrix products in this dtype, for a whole pass: the weights are cast once in it.

    Weights and their gradients, sums over tokens, logits and losses stay as they are.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")
