"""The optimizer, its parameter groups and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from protclip.config import OptimizerConfig

SLOW_PARAMETERS = ("protein_encoder.", "logit_scale")
"""What learns at ``protein_encoder_ratio`` of the rate; the names start so."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW over the parameters that are trained, in two groups: what is pretrained, and what is new."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    slow = [parameter for name, parameter in trained if name.startswith(SLOW_PARAMETERS)]
    fast = [parameter for name, parameter in trained if not name.startswith(SLOW_PARAMETERS)]
    rate = config.learning_rate
    return AdamW(
        [{"params": slow, "lr": rate * config.protein_encoder_ratio}, {"params": fast, "lr": rate}],
        weight_decay=config.weight_decay,
    )


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, epoch_ends: list[int]) -> LambdaLR:
    """Linear warm-up over the first part of the steps, then a decay that would be 0 after the last one.

    Args:
        optimizer: whose rates are set.
        config: kind of decay, and whether it happens by step or by epoch.
        epoch_ends: steps made when each epoch ends.
    """
    total_steps = epoch_ends[-1]
    warmup_steps = round(config.warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if config.decay_by == "epoch":  # as at its first step
            step = max([warmup_steps, *(end for end in epoch_ends if end <= step)])
        left = max(0.0, (total_steps - step) / (total_steps - warmup_steps))
        return left if config.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    return LambdaLR(optimizer, factor)
