"""The optimizer, its parameter groups and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.optim import AdamW, Optimizer

from protclip.config import OptimizerConfig

SLOW_PARAMETERS = ("protein_encoder.", "logit_scale")
"""What learns at ``protein_encoder_ratio`` of the rate; the names start so."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW over the parameters that are trained, in two groups: what is pretrained, and what is new."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    slow = [parameter for name, parameter in trained if name.startswith(SLOW_PARAMETERS)]
    fast = [parameter for name, parameter in trained if not name.startswith(SLOW_PARAMETERS)]
    ratio = config.protein_encoder_ratio
    return AdamW(
        [{"params": slow, "ratio": ratio}, {"params": fast, "ratio": 1.0}],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of the next step; each group has its part of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]


def build_schedule(config: OptimizerConfig, *, epoch_ends: list[int]) -> Callable[[int], float]:
    """Step, from 0 → learning rate: linear warm-up, then a decay that would be 0 after the last step.

    Args:
        config: rate, kind of decay, and whether it happens by step or by epoch.
        epoch_ends: steps made when each epoch ends.
    """
    total_steps = epoch_ends[-1]
    warmup_steps = round(config.warmup_fraction * total_steps)

    def rate(step: int) -> float:
        if step < warmup_steps:
            return config.learning_rate * (step + 1) / (warmup_steps + 1)
        if config.decay_by == "epoch":  # as at its first step
            step = max([warmup_steps, *(end for end in epoch_ends if end <= step)])
        left = max(0.0, (total_steps - step) / (total_steps - warmup_steps))
        return config.learning_rate * (left if config.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left)))

    return rate
