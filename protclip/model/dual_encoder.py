"""The network: a protein encoder, a text encoder, a projection each, the logit scale, and the heads of training.

Source: Zhou et al. 2025 (arXiv:2412.20014), section "Model"; the symmetric contrast is CLIP's (Radford et al. 2021).
Shapes: B items, L tokens, H hidden width of an encoder, D width of the embedding, K = 4 properties of a pair,
P properties that are present, Q masked residues, V tokens of the protein's alphabet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from protclip.config import GC_ALONE, ObjectivesConfig
from protclip.data.collate import Batch, MaskedResidues, PropertyTexts
from protclip.model.encoders import build_encoder
from protclip.model.objective_heads import ObjectiveHeads
from protclip.model.pooling import at_least_fp32, mean_pool, residue_positions
from protclip.protanno.shards import PROPERTIES

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
    objectives: ObjectivesConfig = GC_ALONE
    """Which training heads there are; embeddings do not depend on it."""


class Alignment(NamedTuple):
    """What PDA contrasts."""

    residue_BLD: Tensor
    """Projected tokens of the unmasked proteins."""
    residue_mask_BL: Tensor
    """True at residues: neither special tokens nor padding."""
    property_BKD: Tensor
    """The properties, as mixtures of prototypes; zero where absent."""
    present_BK: Tensor
    text_hash_BK: Tensor
    """Equal where the properties' texts are."""
    logit_scale: Tensor


class Outputs(NamedTuple):
    """What the objectives are computed from; None where one is off."""

    protein_BD: Tensor
    """Unit length, fp32; likewise the texts."""
    text_BD: Tensor
    logit_scale: Tensor
    mlm_logits_BQV: Tensor | None = None
    bsr_logits_BQV: Tensor | None = None
    alignment: Alignment | None = None


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
        self.heads = ObjectiveHeads(
            architecture.objectives,
            hidden_size=architecture.protein.hidden_size,
            dim=dim,
            vocabulary_size=architecture.protein.vocab_size,
        )
        self._freeze_text = freeze_text
        self.text_encoder.requires_grad_(not freeze_text)

    def encode_proteins(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Global embeddings (B, D) of proteins: mean over tokens, projected, unit length, fp32."""
        return _embed(self.protein_projection, self._protein_hidden(ids_BL, mask_BL), mask_BL)

    def encode_texts(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Global embeddings (B, D) of texts: mean over tokens, projected, unit length, fp32."""
        return _embed(self.text_projection, self._text_hidden(ids_BL, mask_BL), mask_BL)

    def encode_properties(self, ids_PL: Tensor, mask_PL: Tensor, noise_key_P: Tensor | None = None) -> Tensor:
        """PDA's queries (P, D): texts pooled, projected and written as mixtures of prototypes; not of unit length.

        Where PDA is off there are no prototypes, and the projected texts stay as they are. ``noise_key_P`` as in
        ``Prototypes.forward``.
        """
        property_PD: Tensor = self.text_projection(mean_pool(self._text_hidden(ids_PL, mask_PL), mask_PL))
        if self.architecture.objectives.pda == 0:
            return at_least_fp32(property_PD)
        return self.heads.property_queries(property_PD, noise_key_P)

    def forward(self, batch: Batch) -> Outputs:
        """All that the objectives of ``architecture.objectives`` need, in one pass of the batch.

        The unmasked proteins and their masked copies go through the encoder together.
        """
        on = self.architecture.objectives
        copies = [batch.protein_ids_BL] if batch.masked_ids_XL is None else [batch.protein_ids_BL, batch.masked_ids_XL]
        ids_XL = torch.cat(copies)
        mask_XL = batch.protein_mask_BL.repeat(len(ids_XL) // batch.num_pairs, 1)
        passes = torch.split(self._protein_hidden(ids_XL, mask_XL), batch.num_pairs)
        text_BLH = self._text_hidden(batch.text_ids_BL, batch.text_mask_BL)
        outputs = Outputs(
            protein_BD=_embed(self.protein_projection, passes[0], batch.protein_mask_BL),
            text_BD=_embed(self.text_projection, text_BLH, batch.text_mask_BL),
            # Not the parameter itself: DDP would think that nothing was computed with it.
            logit_scale=self.logit_scale.clone(),
        )
        if on.mlm > 0:
            assert batch.mlm is not None
            outputs = outputs._replace(mlm_logits_BQV=self.heads.masked_logits(_masked(passes[1], batch.mlm)))
        if on.bsr > 0:
            assert batch.bsr is not None
            logits_BQV = self.heads.segment_logits(
                self.protein_projection(_masked(passes[-1], batch.bsr)),
                self.text_projection(text_BLH),
                batch.text_mask_BL,
            )
            outputs = outputs._replace(bsr_logits_BQV=logits_BQV)
        if on.pda > 0:
            alignment = self._alignment(passes[0], batch.protein_mask_BL, batch.properties)
            outputs = outputs._replace(alignment=alignment)
        return outputs

    def _alignment(self, hidden_BLH: Tensor, mask_BL: Tensor, properties: PropertyTexts | None) -> Alignment:
        residue_BLD = at_least_fp32(self.protein_projection(hidden_BLH))
        num_slots = len(mask_BL) * len(PROPERTIES)
        if properties is None:  # no pair of the batch has any: the parameters get a gradient of zero
            slot_P = text_hash_P = mask_BL.new_empty(0, dtype=torch.int64)
            query_PD = self.heads.property_queries(residue_BLD.new_empty(0, residue_BLD.shape[-1]), None)
        else:
            slot_P, text_hash_P = properties.slot_P, properties.text_hash_P
            query_PD = self.encode_properties(properties.ids_PL, properties.mask_PL, properties.noise_key_P)
        query_SD = query_PD.new_zeros(num_slots, query_PD.shape[-1]).index_copy(0, slot_P, query_PD)
        present_S = mask_BL.new_zeros(num_slots).index_fill(0, slot_P, True)
        text_hash_S = text_hash_P.new_zeros(num_slots).index_copy(0, slot_P, text_hash_P)
        return Alignment(
            residue_BLD=residue_BLD,
            residue_mask_BL=residue_positions(mask_BL),
            property_BKD=query_SD.view(len(mask_BL), len(PROPERTIES), -1),
            present_BK=present_S.view(len(mask_BL), len(PROPERTIES)),
            text_hash_BK=text_hash_S.view(len(mask_BL), len(PROPERTIES)),
            logit_scale=self.heads.segment_logit_scale.clone(),
        )

    def _protein_hidden(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        hidden_BLH: Tensor = self.protein_encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return hidden_BLH

    def _text_hidden(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        hidden_BLH: Tensor = self.text_encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return hidden_BLH

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


def _embed(project: nn.Module, hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    return normalize(at_least_fp32(project(mean_pool(hidden_BLH, mask_BL))), dim=-1)


def _masked(hidden_BLH: Tensor, residues: MaskedResidues) -> Tensor:
    """The hidden states at the masked places, (B, Q, H)."""
    return hidden_BLH.gather(1, residues.place_BQ.unsqueeze(-1).expand(-1, -1, hidden_BLH.shape[-1]))
