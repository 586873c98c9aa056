"""The network: a protein encoder, a text encoder, a projection each, and the logit scale.

Source: Zhou et al. 2025 (arXiv:2412.20014), section "Model"; the symmetric contrast is CLIP's (Radford et al. 2021).
Shapes: B items, L tokens, H hidden width of an encoder, D width of the embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from protclip.data.collate import Batch
from protclip.model.encoders import build_encoder
from protclip.model.pooling import mean_pool

if TYPE_CHECKING:
    from transformers import PretrainedConfig

INITIAL_TEMPERATURE = 0.07
MAX_LOGIT_SCALE = math.log(100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """All that decides the network's shape and what its embeddings see."""

    protein: PretrainedConfig
    text: PretrainedConfig
    projection_dim: int
    """Width of the common space; 512 in the paper."""
    max_protein_tokens: int
    """``<cls>`` and ``<eos>`` included; longer proteins are cut at the C-terminus."""
    max_text_tokens: int
    """``[CLS]`` and ``[SEP]`` included; longer texts are cut at the end."""


class DualEncoder(nn.Module):
    """Token ids in, unit-length embeddings out."""

    def __init__(self, architecture: Architecture, *, freeze_text: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        dim = architecture.projection_dim
        self.protein_encoder = build_encoder("protein", architecture.protein)
        self.text_encoder = build_encoder("text", architecture.text)
        self.protein_projection = projection(architecture.protein.hidden_size, dim)
        self.text_projection = projection(architecture.text.hidden_size, dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))
        self._freeze_text = freeze_text
        self.text_encoder.requires_grad_(not freeze_text)

    def encode_proteins(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Global embeddings (B, D) of proteins: mean over tokens, projected, unit length, fp32."""
        hidden_BLH = self.protein_encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return normalize(self.protein_projection(mean_pool(hidden_BLH, mask_BL)).float(), dim=-1)

    def encode_texts(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Global embeddings (B, D) of texts: mean over tokens, projected, unit length, fp32."""
        hidden_BLH = self.text_encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return normalize(self.text_projection(mean_pool(hidden_BLH, mask_BL)).float(), dim=-1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of the batch's proteins and texts, each (B, D), and the logit scale."""
        protein_BD = self.encode_proteins(batch.protein_ids_BL, batch.protein_mask_BL)
        text_BD = self.encode_texts(batch.text_ids_BL, batch.text_mask_BL)
        return protein_BD, text_BD, self.logit_scale

    def train(self, mode: bool = True) -> DualEncoder:
        """Set training mode; a frozen text encoder stays without dropout."""
        super().train(mode)
        self.text_encoder.train(mode and not self._freeze_text)
        return self


def projection(hidden_size: int, dim: int) -> nn.Sequential:
    """Linear → ReLU → Linear into the common space."""
    return nn.Sequential(nn.Linear(hidden_size, dim), nn.ReLU(), nn.Linear(dim, dim))


def scale(logit_scale: Tensor) -> Tensor:
    """exp(logit_scale), at most 100, with the gradient that brings it back from there."""
    return logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
