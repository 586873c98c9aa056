"""The encoders without padding: the tokens of many sequences in one row, over the weights of HuggingFace's modules.

The numbers are those of ``EsmModel`` and ``BertModel`` on padded batches, which keep the parameters; here is another
forward over them. Attention runs within each sequence: one call of torch's variable-length attention where it can
(CUDA, bf16, heads of a multiple of 8), one call for each length otherwise. ESM-2's rotary positions and BERT's absolute
ones start again with each sequence, and ESM-2's token dropout counts ``<mask>`` per sequence (Lin et al. 2023,
doi:10.1126/science.ade2574; transformers' ``modeling_esm.py`` and ``modeling_bert.py``).

Shapes: S sequences, T tokens of all of them, L tokens of the longest, H hidden width, I inner width, N heads, E width
of a head, F = E / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from protclip import layout
from protclip.errors import ConfigError
from protclip.model.bare_encoders import activation
from protclip.model.encoders import Kind
from protclip.model.pooling import at_least_fp32

_TRAINED_MASK_RATIO = 0.15 * 0.8
"""Share of ``<mask>`` tokens in ESM-2's own training, which token dropout scales to."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each sequence is in a flat row of tokens."""

    lengths: tuple[int, ...]
    """Tokens of each sequence; on the host, since they decide which kernels run."""
    length_S: Tensor
    start_S1: Tensor
    """First token of each sequence, and T at the end; int32, as variable-length attention takes it."""
    sequence_T: Tensor
    """The sequence that each token is of."""
    position_T: Tensor
    """Its place within it, from 0."""

    def first(self, num_sequences: int) -> Packing:
        """That of the first sequences alone."""
        num_tokens = sum(self.lengths[:num_sequences])
        return Packing(
            self.lengths[:num_sequences],
            self.length_S[:num_sequences],
            self.start_S1[: num_sequences + 1],
            self.sequence_T[:num_tokens],
            self.position_T[:num_tokens],
        )


def pack(ids_and_masks: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Packing]:
    """Padded token ids (B, L) with their masks, of one batch or several, as one row (T,), and where its sequences are.

    It waits for the device once: the host has to know the lengths.
    """
    ids_T = torch.cat([ids_BL[mask_BL] for ids_BL, mask_BL in ids_and_masks])
    length_S = torch.cat([mask_BL.sum(1) for _, mask_BL in ids_and_masks])
    start_S1 = pad(length_S.cumsum(0), (1, 0))
    sequence_T = torch.arange(len(length_S), device=ids_T.device).repeat_interleave(length_S, output_size=len(ids_T))
    position_T = torch.arange(len(ids_T), device=ids_T.device) - start_S1[sequence_T]
    return ids_T, Packing(tuple(length_S.tolist()), length_S, start_S1.int(), sequence_T, position_T)


def pack_rows(rows: Sequence[Sequence[int] | np.ndarray], device: torch.device) -> tuple[Tensor, Packing]:
    """The same of lists of token ids, one for each sequence, which need no padding on the way; nothing waits."""
    lengths = [len(row) for row in rows]
    # Small arrays: numpy makes them several times as fast as torch, and they go to the device together.
    start = np.cumsum([0, *lengths])
    sequence = np.repeat(np.arange(len(rows)), lengths)
    parts = [np.concatenate(rows), np.asarray(lengths), start, sequence, np.arange(start[-1]) - start[sequence]]
    flat = torch.from_numpy(np.concatenate(parts, dtype=np.int64, casting="unsafe")).to(device, non_blocking=True)
    ids_T, length_S, start_S1, sequence_T, position_T = torch.split(flat, [len(part) for part in parts])
    return ids_T, Packing(tuple(lengths), length_S, start_S1.int(), sequence_T, position_T)


def unpack(values_TD: Tensor, packing: Packing) -> Tensor:
    """What belongs to each token of a row, as a padded batch (S, L, D) with zeros at the padding."""
    longest = max(packing.lengths)
    slot_T = packing.sequence_T * longest + packing.position_T
    padded = values_TD.new_zeros(len(packing.lengths) * longest, values_TD.shape[-1]).index_copy(0, slot_T, values_TD)
    return padded.view(len(packing.lengths), longest, -1)


def check_packable(kind: Kind, config: Any, *, training: bool) -> None:
    """That the packed forward computes what an encoder of this configuration does.

    Args:
        kind: which tower.
        config: HuggingFace's.
        training: whether it is in training mode, where dropout would act.

    Raises:
        ConfigError: naming what it does not compute, and the setting under which it need not.
    """
    wanted: dict[str, Any] = {"is_decoder": False, "add_cross_attention": False}
    if kind == "protein":
        wanted |= {"position_embedding_type": "rotary", "emb_layer_norm_before": False}
    if training:
        wanted |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for name, value in wanted.items():
        # None is how HuggingFace writes a switch that is off.
        if (found := getattr(config, name, None) or type(value)()) != value:
            raise ConfigError(
                f"the {kind} encoder has {name}={found!r}, and the packed forward only knows {value!r}; change it in "
                f"model.{kind}.config, or set model.attention=padded, which is slower."
            )


def esm_hidden(encoder: Any, ids_T: Tensor, packing: Packing) -> Tensor:
    """``EsmModel``'s last hidden state of each token, (T, H)."""
    check_packable("protein", encoder.config, training=encoder.training)
    hidden_TH = _esm_embeddings(encoder, ids_T, packing)
    cos_L1F, sin_L1F = _rotary_table(encoder.rotary_embeddings.inv_freq, max(packing.lengths))
    cos_T1F, sin_T1F = cos_L1F[packing.position_T], sin_L1F[packing.position_T]

    def layer_forward(layer: Any, hidden_TH: Tensor) -> Tensor:
        attention = layer.attention.self
        normed_TH = layer.attention.LayerNorm(hidden_TH)
        query_TNE, key_TNE, value_TNE = _query_key_value(attention, normed_TH, encoder.config.num_attention_heads)
        query_TNE, key_TNE = (_rotated(x_TNE, cos_T1F, sin_T1F) for x_TNE in (query_TNE, key_TNE))
        read_TH = attend(query_TNE, key_TNE, value_TNE, packing)
        hidden_TH = hidden_TH + layer.attention.output.dense(read_TH)
        # The exact GELU, as ESM-2 writes it out; fused it is several times as fast.
        inner_TI = gelu(layer.intermediate.dense(layer.LayerNorm(hidden_TH)))
        out_TH: Tensor = hidden_TH + layer.output.dense(inner_TI)
        return out_TH

    hidden_TH = _layers(encoder.encoder.layer, layer_forward, hidden_TH)
    last_TH: Tensor = encoder.encoder.emb_layer_norm_after(hidden_TH)
    return last_TH


def bert_hidden(encoder: Any, ids_T: Tensor, packing: Packing) -> Tensor:
    """``BertModel``'s last hidden state of each token, (T, H); all tokens are of type 0."""
    check_packable("text", encoder.config, training=encoder.training)
    embeddings = encoder.embeddings
    embedded_TH = embeddings.word_embeddings(ids_T) + embeddings.token_type_embeddings.weight[0]
    hidden_TH = embeddings.LayerNorm(embedded_TH + embeddings.position_embeddings(packing.position_T))
    activate, num_heads = activation(encoder.config.hidden_act), encoder.config.num_attention_heads

    def layer_forward(layer: Any, hidden_TH: Tensor) -> Tensor:
        read_TH = attend(*_query_key_value(layer.attention.self, hidden_TH, num_heads), packing)
        output = layer.attention.output
        hidden_TH = output.LayerNorm(hidden_TH + output.dense(read_TH))
        out_TH: Tensor = layer.output.LayerNorm(
            hidden_TH + layer.output.dense(activate(layer.intermediate.dense(hidden_TH)))
        )
        return out_TH

    return _layers(encoder.encoder.layer, layer_forward, hidden_TH)


def _layers(layers: nn.ModuleList, layer_forward: Callable[[Any, Tensor], Tensor], hidden_TH: Tensor) -> Tensor:
    """Through all layers, recomputing their inside in backward where HuggingFace's switch says so."""
    for layer in layers:
        run = partial(layer_forward, layer)
        if layer.training and getattr(layer, "gradient_checkpointing", False):
            run = partial(checkpoint, run, use_reentrant=False)
        hidden_TH = layout.run_block(layer, run, hidden_TH)
    return hidden_TH


def _esm_embeddings(encoder: Any, ids_T: Tensor, packing: Packing) -> Tensor:
    hidden_TH: Tensor = encoder.embeddings.word_embeddings(ids_T)
    if not encoder.config.token_dropout:
        return hidden_TH
    is_masked_T = ids_T == encoder.config.mask_token_id
    num_masked_S = torch.zeros_like(packing.length_S).index_add_(0, packing.sequence_T, is_masked_T.long())
    ratio_S = at_least_fp32(num_masked_S / packing.length_S)
    factor_S = (1 - _TRAINED_MASK_RATIO) / (1 - ratio_S)
    factor_T = factor_S[packing.sequence_T].masked_fill(is_masked_T, 0.0)
    return (hidden_TH * factor_T[:, None]).to(hidden_TH.dtype)


def _query_key_value(attention: Any, hidden_TH: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(hidden_TH), num_heads, hidden_TH.shape[-1] // num_heads)
    query, key, value = (
        project(hidden_TH).view(shape) for project in (attention.query, attention.key, attention.value)
    )
    return query, key, value


def attend(query_TNE: Tensor, key_TNE: Tensor, value_TNE: Tensor, packing: Packing) -> Tensor:
    """softmax(q·kᵀ / √E)·v within each sequence, the heads side by side, (T, H)."""
    dtype = value_TNE.dtype
    if value_TNE.is_cuda and dtype == torch.bfloat16 and value_TNE.shape[-1] % 8 == 0:
        from torch.nn.attention.varlen import varlen_attn

        start_S1, longest = packing.start_S1, max(packing.lengths)
        read_TNE = varlen_attn(query_TNE.to(dtype), key_TNE.to(dtype), value_TNE, start_S1, start_S1, longest, longest)
        assert isinstance(read_TNE, Tensor)
        return read_TNE.flatten(1)
    # torch's kernel for CPUs takes longer in bf16 than in fp32, backward several times as long for short sequences.
    query_TNE, key_TNE, value_TNE = (at_least_fp32(x_TNE) for x_TNE in (query_TNE, key_TNE, value_TNE))
    # Neighbours of one length are one call.
    counts = [(length, sum(1 for _ in same)) for length, same in groupby(packing.lengths)]
    if len(counts) == 1:
        return _attend_alike(query_TNE, key_TNE, value_TNE, counts[0][0])
    sizes = [length * count for length, count in counts]
    blocks = (torch.split(x_TNE, sizes) for x_TNE in (query_TNE, key_TNE, value_TNE))
    parts = zip((length for length, _ in counts), *blocks, strict=True)
    return torch.cat([_attend_alike(query, key, value, length) for length, query, key, value in parts])


def _attend_alike(query_TNE: Tensor, key_TNE: Tensor, value_TNE: Tensor, length: int) -> Tensor:
    """The same of sequences of one length."""
    query, key, value = (x.view(-1, length, *x.shape[1:]).transpose(1, 2) for x in (query_TNE, key_TNE, value_TNE))
    with torch.autocast(query.device.type, enabled=False):
        return scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(len(query_TNE), -1)


def _rotary_table(inv_freq_F: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin (L, 1, F) of each position's angles."""
    angle_LF = torch.arange(length, device=inv_freq_F.device)[:, None] * inv_freq_F.float()
    return angle_LF.cos()[:, None], angle_LF.sin()[:, None]


def _rotated(x_TNE: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
    out_TNE: Tensor = _Rotation.apply(x_TNE, cos_T1F, sin_T1F)  # type: ignore[no-untyped-call]
    return out_TNE


class _Rotation(torch.autograd.Function):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864), in fp32 at least.

    Backward turns the other way and keeps no input.
    """

    @staticmethod
    def forward(ctx: Any, x_TNE: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
        ctx.save_for_backward(cos_T1F, sin_T1F)
        ctx.dtype = x_TNE.dtype
        return _rotate(x_TNE, cos_T1F, sin_T1F)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos_T1F, sin_T1F = ctx.saved_tensors
        return _rotate(grads[0], cos_T1F, -sin_T1F).to(ctx.dtype), None, None


def _rotate(x_TNE: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
    wide_TNE = at_least_fp32(x_TNE)
    out_TNE = torch.empty_like(wide_TNE)
    (one, two), (to_one, to_two) = wide_TNE.chunk(2, dim=-1), out_TNE.chunk(2, dim=-1)
    torch.mul(one, cos_T1F, out=to_one).addcmul_(two, sin_T1F, value=-1)
    torch.mul(two, cos_T1F, out=to_two).addcmul_(one, sin_T1F)
    return out_TNE
