"""The parameters that only training needs: the heads of MLM, BSR and PDA.

Source: Zhou et al. 2025 (arXiv:2412.20014), section "Pre-training objectives".
Shapes: B pairs, Q masked residues, T text tokens, P properties that are present, H hidden width of the protein encoder,
D width of the common space, V tokens of the protein's alphabet.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from protclip.config import ObjectivesConfig
from protclip.model.pooling import at_least_fp32
from protclip.model.prototypes import Prototypes

INITIAL_SEGMENT_TEMPERATURE = 0.1


class ObjectiveHeads(nn.Module):
    """The heads of the objectives that are on; a parameter is used or not there.

    Members: ``mlm_head`` (MLM); ``segment_attention`` and ``segment_head`` (BSR); ``prototypes`` and
    ``segment_logit_scale`` (PDA). They compute in fp32 at least, whatever the autocast.
    """

    mlm_head: nn.Sequential
    segment_attention: SegmentAttention
    segment_head: nn.Sequential
    prototypes: Prototypes
    segment_logit_scale: nn.Parameter

    def __init__(self, objectives: ObjectivesConfig, *, hidden_size: int, dim: int, vocabulary_size: int) -> None:
        super().__init__()
        if objectives.mlm > 0:
            self.mlm_head = _token_head(hidden_size, dim, vocabulary_size)
        if objectives.bsr > 0:
            self.segment_attention = SegmentAttention(dim)
            self.segment_head = _token_head(dim, dim, vocabulary_size)
        if objectives.pda > 0:
            self.prototypes = Prototypes(objectives.num_prototypes, dim, temperature=objectives.gumbel_temperature)
            self.segment_logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_SEGMENT_TEMPERATURE)))

    def masked_logits(self, hidden_BQH: Tensor) -> Tensor:
        """MLM: logits (B, Q, V) from the encoder's output at the masked places."""
        with torch.autocast(hidden_BQH.device.type, enabled=False):
            logits_BQV: Tensor = self.mlm_head(at_least_fp32(hidden_BQH))
            return logits_BQV

    def segment_logits(self, residue_BQD: Tensor, text_BTD: Tensor, text_mask_BT: Tensor) -> Tensor:
        """BSR: logits (B, Q, V) from the projected masked places and the projected tokens of the biotext."""
        with torch.autocast(residue_BQD.device.type, enabled=False):
            fused_BQD = self.segment_attention(at_least_fp32(residue_BQD), at_least_fp32(text_BTD), text_mask_BT)
            logits_BQV: Tensor = self.segment_head(fused_BQD)
            return logits_BQV

    def property_queries(self, property_PD: Tensor, noise_key_P: Tensor | None) -> Tensor:
        """PDA: the properties as mixtures of prototypes, (P, D); with noise in training alone."""
        with torch.autocast(property_PD.device.type, enabled=False):
            mixture_PD: Tensor = self.prototypes(at_least_fp32(property_PD), noise_key_P if self.training else None)
            return mixture_PD


class SegmentAttention(nn.Module):
    """softmax(W_q·x · (W_k·t)ᵀ / √D) · W_v·t over the tokens of the pair's own biotext, padding out, no residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, residue_BQD: Tensor, text_BTD: Tensor, text_mask_BT: Tensor) -> Tensor:
        """What each masked place reads in its biotext, (B, Q, D)."""
        return scaled_dot_product_attention(
            self.query(residue_BQD), self.key(text_BTD), self.value(text_BTD), attn_mask=text_mask_BT[:, None, :]
        )


def _token_head(width_in: int, width: int, vocabulary_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, vocabulary_size))
