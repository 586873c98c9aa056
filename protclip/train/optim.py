"""The optimizer and its schedule."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from protclip.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW over the parameters that are trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, total_steps: int) -> LambdaLR:
    """Linear warm-up over the first part of the steps, then linear decay that ends at 0 after the last one."""
    warmup_steps = round(config.warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return max(0.0, (total_steps - step) / (total_steps - warmup_steps))

    return LambdaLR(optimizer, factor)
