"""PDA's prototype memory bank.

    q_k = softmax((u_k · Mᵀ + g) / τ) · M,   g: Gumbel noise, in training alone

Source: Zhou et al. 2025 (arXiv:2412.20014), prototype memory bank; Gumbel softmax: Jang et al. 2017 (arXiv:1611.01144).
Shapes: P properties, D width, M prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_GOLDEN, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""SplitMix64's constants (``protclip.hashing``) as signed integers: torch has no arithmetic of unsigned ones."""


class Prototypes(nn.Module):
    """Vectors that properties are written as mixtures of."""

    def __init__(self, num_prototypes: int, dim: int, *, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_prototypes, dim))
        if not self.weight.is_meta:  # where torch would import its compiler to draw nothing
            nn.init.normal_(self.weight)
        self.temperature = temperature

    def forward(self, property_PD: Tensor, noise_key_P: Tensor | None) -> Tensor:
        """The mixture (P, D) for each property.

        Args:
            property_PD: pooled and projected texts.
            noise_key_P: int64 seeds of the noise, one a property; None for no noise.
        """
        logits_PM = property_PD @ self.weight.T
        if noise_key_P is not None:
            logits_PM = logits_PM + gumbel_noise(noise_key_P, len(self.weight)).to(logits_PM.dtype)
        return (logits_PM / self.temperature).softmax(-1) @ self.weight


def gumbel_noise(key_P: Tensor, count: int) -> Tensor:
    """Standard Gumbel numbers (P, count), float64, that depend on their key and their place alone.

    The numbers of a property are thus the same on any worker and in any batch, and a run that goes on draws those of
    the undisturbed one.
    """
    counter_C = torch.arange(1, count + 1, device=key_P.device) * _GOLDEN
    bits_PC = _shift_right(_mix(key_P[:, None] + counter_C), 11)  # 53 bits
    uniform_PC = (bits_PC.double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform_PC))


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser; products wrap round."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
