"""The encoders of a checkpoint as the packed forward takes them: settings and weights, without HuggingFace's classes.

Those take two seconds to import, and a search should have answered by then. The weights have their names, so that one
file fills either. Training starts from theirs, which know how weights are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from protclip.checked import Count, Size, checked
from protclip.errors import CheckpointError

if TYPE_CHECKING:
    from protclip.model.encoders import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class BareConfig:
    """What decides how an encoder computes, under the names of HuggingFace's EsmConfig and BertConfig."""

    stored: dict[str, Any]
    """All fields of theirs, as config.json has them."""
    model_type: str
    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Count
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    pad_token_id: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    is_decoder: bool = False
    add_cross_attention: bool = False
    position_embedding_type: str | None = None
    """This and the three after it are of ESM alone."""
    emb_layer_norm_before: bool | None = None
    token_dropout: bool | None = None
    mask_token_id: int | None = None
    type_vocab_size: Size = 2
    """This and the one after it are of BERT alone."""
    hidden_act: str = "gelu"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return self.stored


def bare_config(fields: Mapping[str, Any], where: str) -> BareConfig:
    """An encoder's settings from a file, which is named in errors.

    Raises:
        CheckpointError: for a field that is missing or of another type.
    """
    return checked(BareConfig, {**fields, "stored": dict(fields)}, where, error=CheckpointError)


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of a BERT's inner layers, by HuggingFace's name; KeyError for one that it does not know."""
    if name == "gelu":  # BERT's; HuggingFace's table of all others takes seconds to import
        return gelu
    from transformers.activations import ACT2FN

    function: Callable[[Tensor], Tensor] = ACT2FN[name]
    return function


class BareEncoder(nn.Module):
    """An encoder's weights, as ``EsmModel`` and ``BertModel`` name them."""

    def __init__(self, kind: Kind, config: BareConfig) -> None:
        super().__init__()
        self.config = config
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(f"hidden_size={config.hidden_size} is no multiple of {config.num_attention_heads} heads")
        make_layer = _esm_layer if kind == "protein" else _bert_layer
        parts: dict[str, nn.Module] = {"layer": nn.ModuleList(map(make_layer, [config] * config.num_hidden_layers))}
        tables: dict[str, nn.Module] = {"word_embeddings": _table(config.vocab_size, config)}
        if kind == "protein":
            parts["emb_layer_norm_after"] = _norm(config)
            self.rotary_embeddings = nn.Module()
            angles = torch.empty(config.hidden_size // config.num_attention_heads // 2)
            self.rotary_embeddings.register_buffer("inv_freq", angles)
        else:
            activation(config.hidden_act)  # so that one that is not known is refused here
            tables["position_embeddings"] = _table(config.max_position_embeddings, config)
            tables["token_type_embeddings"] = _table(config.type_vocab_size, config)
            tables["LayerNorm"] = _norm(config)
        self.embeddings = nn.ModuleDict(tables)
        self.encoder = nn.ModuleDict(parts)


def _table(num_rows: int, config: BareConfig) -> nn.Embedding:
    # On the meta device the random numbers of its own would make torch import its compiler, in a second.
    rows = torch.empty(num_rows, config.hidden_size)
    return nn.Embedding(num_rows, config.hidden_size, _weight=rows)


def _esm_layer(config: BareConfig) -> nn.ModuleDict:
    """Norms before attention and before the inner layer."""
    attention = nn.ModuleDict({**_attention(config), "LayerNorm": _norm(config)})
    return nn.ModuleDict({"attention": attention, **_inner(config), "LayerNorm": _norm(config)})


def _bert_layer(config: BareConfig) -> nn.ModuleDict:
    """Norms behind both."""
    layer = nn.ModuleDict({"attention": nn.ModuleDict(_attention(config)), **_inner(config)})
    for part in (layer["attention"], layer):
        part["output"]["LayerNorm"] = _norm(config)  # type: ignore[index]
    return layer


def _attention(config: BareConfig) -> dict[str, nn.Module]:
    width = config.hidden_size
    projections = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
    return {"self": projections, "output": nn.ModuleDict({"dense": nn.Linear(width, width)})}


def _inner(config: BareConfig) -> dict[str, nn.Module]:
    width, inner = config.hidden_size, config.intermediate_size
    return {
        "intermediate": nn.ModuleDict({"dense": nn.Linear(width, inner)}),
        "output": nn.ModuleDict({"dense": nn.Linear(inner, width)}),
    }


def _norm(config: BareConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
