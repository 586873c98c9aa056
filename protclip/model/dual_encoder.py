"""The network: a protein encoder, a text encoder, a projection each, the logit scale, and the heads of training.

Source: Zhou et al. 2025 (arXiv:2412.20014), section "Model"; the symmetric contrast is CLIP's (Radford et al. 2021).
Shapes: B items, L tokens, H hidden width of an encoder, D width of the embedding, K = 4 properties of a pair,
P properties that are present, Q masked residues, V tokens of the protein's alphabet. Behind the encoders the tokens of
all S sequences are one row of T tokens, without padding (model/packed.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from protclip.config import GC_ALONE, ObjectivesConfig
from protclip.data.collate import Batch, MaskedResidues, PropertyTexts
from protclip.inputs import Dtype, Layer
from protclip.model.bare_encoders import BareConfig
from protclip.model.encoders import Kind, build_encoder
from protclip.model.objective_heads import ObjectiveHeads
from protclip.model.packed import Packing, bert_hidden, esm_hidden, pack, unpack
from protclip.model.pooling import at_least_fp32, mean_pool, residue_positions
from protclip.model.precision import autocast
from protclip.protanno.shards import PROPERTIES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

INITIAL_TEMPERATURE = 0.07
ENCODING_METHODS = ("encode_packed", "pool_packed", "encode_packed_residues", "encode_properties")
"""Of ``DualEncoder``, beside ``forward``."""
MAX_LOGIT_SCALE = math.log(100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """All that decides the network's shape and what its embeddings see."""

    protein: PretrainedConfig | BareConfig
    """HuggingFace's, or of a checkpoint whose weights alone are needed; likewise the text encoder's."""
    text: PretrainedConfig | BareConfig
    projection_dim: int
    """Width of the common space; 512 in the paper."""
    max_protein_tokens: int
    """``<cls>`` and ``<eos>`` included; longer proteins are cut at the C-terminus."""
    max_text_tokens: int
    """``[CLS]`` and ``[SEP]`` included; longer texts are cut at the end."""
    objectives: ObjectivesConfig = GC_ALONE
    """Which training heads there are; embeddings do not depend on it."""
    attention: Literal["packed", "padded"] = "packed"
    """How the encoders run; embeddings do not depend on it. See ``ModelConfig.attention``."""


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

    def __init__(self, architecture: Architecture, *, freeze_text: bool = False, precision: Dtype = "float32") -> None:
        super().__init__()
        self.architecture = architecture
        self.precision = precision
        """Of ``forward``: of a training step, and of all that is to compute as it does."""
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

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of both encoders, which compute one after the other."""
        encoders: list[Any] = [self.protein_encoder, self.text_encoder]
        return [layer for encoder in encoders for layer in encoder.encoder.layer]

    def encode_packed(self, kind: Kind, ids_T: Tensor, packing: Packing) -> Tensor:
        """Global embeddings (S, D) of proteins or texts in one row: means over tokens, projected, unit length, fp32."""
        return _unit(self.project_mean(kind, self.hidden(kind, ids_T, packing), packing))

    def pool_packed(self, kind: Kind, ids_T: Tensor, packing: Packing, layer: Layer) -> Tensor:
        """Means over tokens, (S, H) at the hidden layer, (S, D) behind the projection; fp32, not of unit length."""
        hidden_TH = self.hidden(kind, ids_T, packing)
        if layer == "hidden":
            return mean_pool(hidden_TH, packing.length_S)
        return self.project_mean(kind, hidden_TH, packing)

    def encode_packed_residues(
        self, ids_T: Tensor, packing: Packing, layer: Layer = "projection"
    ) -> tuple[Tensor, Tensor]:
        """Global embeddings (S, D) of proteins, and all their tokens at a layer, (T, D) or (T, H); fp32."""
        hidden_TH = self.hidden("protein", ids_T, packing)
        protein_SD = _unit(self.project_mean("protein", hidden_TH, packing))
        return protein_SD, at_least_fp32(hidden_TH if layer == "hidden" else self.protein_projection(hidden_TH))

    def encode_properties(self, ids_PL: Tensor, mask_PL: Tensor) -> Tensor:
        """PDA's queries (P, D): texts pooled, projected and written as mixtures of prototypes; not of unit length.

        Without noise. Where PDA is off there are no prototypes, and the projected texts stay as they are.
        """
        hidden_TH, packing = self._text_hidden([(ids_PL, mask_PL)])
        property_PD = self.project_mean("text", hidden_TH, packing)
        if self.architecture.objectives.pda == 0:
            return property_PD
        return self.heads.property_queries(property_PD, None)

    def forward(self, batch: Batch) -> Outputs:
        """All that the objectives need, computed in ``self.precision``; logits and embeddings are fp32 in any."""
        with autocast(batch.protein_ids_BL.device, self.precision):
            return self._outputs(batch)

    def _outputs(self, batch: Batch) -> Outputs:
        """All that the objectives of ``architecture.objectives`` need, in one pass of the batch.

        The unmasked proteins and their masked copies go through the encoder together; so do biotexts and properties.
        """
        on, num_pairs = self.architecture.objectives, batch.num_pairs
        copies = [batch.protein_ids_BL] if batch.masked_ids_XL is None else [batch.protein_ids_BL, batch.masked_ids_XL]
        ids_XL = torch.cat(copies)
        mask_XL = batch.protein_mask_BL.repeat(len(ids_XL) // num_pairs, 1)
        protein_TH, proteins = self._protein_hidden([(ids_XL, mask_XL)])
        unmasked = proteins.first(num_pairs)
        unmasked_TH = protein_TH[: sum(unmasked.lengths)]

        texts = [(batch.text_ids_BL, batch.text_mask_BL)]
        if batch.properties is not None:
            texts.append((batch.properties.ids_PL, batch.properties.mask_PL))
        text_TH, packing = self._text_hidden(texts)
        biotexts = packing.first(num_pairs)
        # The biotexts, and the properties behind them.
        text_SD = self.project_mean("text", text_TH, packing)
        outputs = Outputs(
            protein_BD=_unit(self.project_mean("protein", unmasked_TH, unmasked)),
            text_BD=_unit(text_SD[:num_pairs]),
            # Not the parameter itself: DDP would think that nothing was computed with it.
            logit_scale=self.logit_scale.clone(),
        )
        if on.mlm > 0:
            assert batch.mlm is not None
            hidden_BQH = _masked(protein_TH, proteins.start_S1[num_pairs : 2 * num_pairs], batch.mlm)
            outputs = outputs._replace(mlm_logits_BQV=self.heads.masked_logits(hidden_BQH))
        if on.bsr > 0:
            assert batch.bsr is not None
            hidden_BQH = _masked(protein_TH, proteins.start_S1[-1 - num_pairs : -1], batch.bsr)
            biotext_TD = self.text_projection(text_TH[: sum(biotexts.lengths)])
            logits_BQV = self.heads.segment_logits(
                self.protein_projection(hidden_BQH), unpack(biotext_TD, biotexts), batch.text_mask_BL
            )
            outputs = outputs._replace(bsr_logits_BQV=logits_BQV)
        if on.pda > 0:
            residue_BLD = unpack(self.protein_projection(unmasked_TH), unmasked)
            alignment = self._alignment(residue_BLD, batch.protein_mask_BL, text_SD[num_pairs:], batch.properties)
            outputs = outputs._replace(alignment=alignment)
        return outputs

    def _alignment(
        self, residue_BLD: Tensor, mask_BL: Tensor, property_PD: Tensor, properties: PropertyTexts | None
    ) -> Alignment:
        num_slots = len(mask_BL) * len(PROPERTIES)
        if properties is None:  # no pair of the batch has any: the parameters get a gradient of zero
            slot_P = text_hash_P = mask_BL.new_empty(0, dtype=torch.int64)
            noise_key_P = None
        else:
            slot_P, text_hash_P, noise_key_P = properties.slot_P, properties.text_hash_P, properties.noise_key_P
        query_PD = self.heads.property_queries(property_PD, noise_key_P)
        query_SD = query_PD.new_zeros(num_slots, query_PD.shape[-1]).index_copy(0, slot_P, query_PD)
        present_S = mask_BL.new_zeros(num_slots).index_fill(0, slot_P, True)
        text_hash_S = text_hash_P.new_zeros(num_slots).index_copy(0, slot_P, text_hash_P)
        return Alignment(
            residue_BLD=at_least_fp32(residue_BLD),
            residue_mask_BL=residue_positions(mask_BL),
            property_BKD=query_SD.view(len(mask_BL), len(PROPERTIES), -1),
            present_BK=present_S.view(len(mask_BL), len(PROPERTIES)),
            text_hash_BK=text_hash_S.view(len(mask_BL), len(PROPERTIES)),
            logit_scale=self.heads.segment_logit_scale.clone(),
        )

    def project_mean(self, kind: Kind, hidden_TH: Tensor, packing: Packing) -> Tensor:
        """Means over the tokens of each sequence, projected, (S, D), in fp32 whatever the autocast.

        In bf16 the kernel that projects a single row may round otherwise than the one for many, by 1e-3.
        """
        project = self.protein_projection if kind == "protein" else self.text_projection
        with torch.autocast(hidden_TH.device.type, enabled=False):
            projected_SD: Tensor = project(mean_pool(hidden_TH, packing.length_S))
        return projected_SD

    def _protein_hidden(self, ids_and_masks: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Packing]:
        ids_T, packing = pack(ids_and_masks)
        return self.hidden("protein", ids_T, packing), packing

    def _text_hidden(self, ids_and_masks: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Packing]:
        ids_T, packing = pack(ids_and_masks)
        return self.hidden("text", ids_T, packing), packing

    def hidden(self, kind: Kind, ids_T: Tensor, packing: Packing) -> Tensor:
        """The encoder's last hidden state of each token, (T, H)."""
        encoder = self.protein_encoder if kind == "protein" else self.text_encoder
        if self.architecture.attention == "padded":
            return _padded(encoder, ids_T, packing)
        return (esm_hidden if kind == "protein" else bert_hidden)(encoder, ids_T, packing)

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


def _unit(projected_BD: Tensor) -> Tensor:
    return normalize(at_least_fp32(projected_BD), dim=-1)


def _masked(hidden_TH: Tensor, start_B: Tensor, residues: MaskedResidues) -> Tensor:
    """The hidden states at the masked places of the sequences that start there, (B, Q, H)."""
    index_BQ = start_B[:, None] + residues.place_BQ
    return hidden_TH.index_select(0, index_BQ.flatten()).view(*index_BQ.shape, -1)


def _padded(encoder: nn.Module, ids_T: Tensor, packing: Packing) -> Tensor:
    """The last hidden state (T, H) by HuggingFace's own forward on a padded batch."""
    ids_SL = unpack(ids_T[:, None], packing)[..., 0]
    mask_SL = torch.arange(ids_SL.shape[1], device=ids_T.device) < packing.length_S[:, None]
    hidden_TH: Tensor = encoder(input_ids=ids_SL, attention_mask=mask_SL).last_hidden_state[mask_SL]
    return hidden_TH
