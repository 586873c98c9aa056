"""The names of the authors' published checkpoint: which tensor is which of ours, and which are not used, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from protclip.errors import CheckpointError

ROTARY = "protein_encoder.rotary_embeddings.inv_freq"
LOCAL_SCALE = "local_logit_scale"

# Official name → ours; a key that ends with a dot is a prefix. A name whose counterpart the model lacks is kept beside.
OFFICIAL_TO_OURS = {
    "protein_model.": "protein_encoder.",
    "text_model.": "text_encoder.",
    "protein_projection.": "protein_projection.",
    "text_projection.": "text_projection.",
    "logit_scale": "logit_scale",
    "mlm_head.": "heads.mlm_head.",
    "t2p_mlm_head.": "heads.segment_head.",
    "decoder.": "heads.segment_attention.",
    "proto_bank.prototype.": "heads.prototypes.",
    LOCAL_SCALE: "heads.segment_logit_scale",  # its first value; the second is never read
}

_NO_HEADS = "trains one of the objectives; the model has no training heads, and embeddings need none"

# (pattern of the official name, why the model does not hold it); the first that matches counts.
KEPT_BESIDE = (
    (r"(protein|text)_model\.pooler\..+", "the pooler on <cls>: the embedding is the mean over tokens"),
    (r"protein_model\.contact_head\..+", "ESM-2's contact prediction: no objective reads it"),
    (
        r"protein_model\.embeddings\.position_embeddings\.weight",
        "ESM-2's positions are rotary: absolute ones are unread",
    ),
    (r"(protein|text)_model\.embeddings\.(position|token_type)_ids", "a constant counter, made anew at each start"),
    (r"local_cross_attention\..+", "cross-attention of an earlier version: the published training never calls it"),
    (r"predictor\..+", "a SimSiam head of an earlier version: the published training never calls it"),
    (r"(fusion_model|mmp_protein_head|mmp_text_head)\..+", "an objective that the paper does not have (mmp)"),
    (LOCAL_SCALE, "two values: the first is the scale of segment alignment, the second is never read"),
    (r"(mlm_head|t2p_mlm_head|decoder|proto_bank\.prototype)\..+", _NO_HEADS),
)

_LAYER_INV_FREQ = re.compile(r"protein_model\.encoder\.layer\.\d+\.attention\.self\.rotary_embeddings\.inv_freq")
_OLD_LAYER_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What becomes of each tensor of a published file."""

    mapped: dict[str, str]
    """Official name → ours; the rotary copies of all layers share one."""
    beside: dict[str, str]
    """Official name → the reason why the model does not hold it (or, of ``local_logit_scale``, not all of it)."""


def make_plan(
    shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], config: Mapping[str, Any], path: str
) -> Plan:
    """Where each tensor of the published file goes.

    Args:
        shapes: of the file's tensors, by their names.
        state: the model's tensors.
        config: the published config.json; its switches say which heads there are.
        path: for messages.

    Raises:
        CheckpointError: naming what is missing, of another shape, or unknown.
    """
    mapped: dict[str, str] = {}
    beside: dict[str, str] = {}
    unknown = []
    for name in sorted(shapes):
        ours = our_name(name)
        if ours is not None and ours in state:
            mapped[name] = ours
        reason = next((reason for pattern, reason in KEPT_BESIDE if re.fullmatch(pattern, name)), None)
        if name == LOCAL_SCALE or name not in mapped:
            if reason is None:
                unknown.append(name)
            else:
                beside[name] = reason
    if unknown:
        raise CheckpointError(
            f"{path}: has {len(unknown)} tensors that the published format does not know, such as {unknown[0]}; "
            "it is of another model."
        )
    _check_names(shapes, mapped, state, config, path)
    wanted = {
        **_head_shapes(shapes, state, config),
        **{name: tuple(state[ours].shape) for name, ours in mapped.items()},
    }
    wanted[LOCAL_SCALE] = (2,)
    for name, shape in shapes.items():
        if name in wanted and shape != wanted[name]:
            raise CheckpointError(f"{path}: {name} has shape {shape}, {wanted[name]} is needed by config.json.")
    return Plan(mapped=mapped, beside=beside)


def our_name(official: str) -> str | None:
    """The name in our model of a published tensor; None where the format has no such name."""
    if _LAYER_INV_FREQ.fullmatch(official):
        return ROTARY
    for theirs, ours in OFFICIAL_TO_OURS.items():
        if official == theirs or (theirs.endswith(".") and official.startswith(theirs)):
            return renewed(ours + official[len(theirs) :])
    return None


def renewed(name: str) -> str:
    """A tensor's name as it is now, of one from before layer norms had weight and bias."""
    for old, new in _OLD_LAYER_NORM.items():
        name = name.replace(old, new)
    return name


def _check_names(
    shapes: Mapping[str, Any], mapped: Mapping[str, str], state: Mapping[str, Any], config: Mapping[str, Any], path: str
) -> None:
    # A library that does not store inv_freq recomputes it, as our model has done by now.
    missing = [_official_name(ours) for ours in sorted(set(state) - set(mapped.values()) - {ROTARY})]
    missing += [name for name in _head_shapes(shapes, state, config) if name not in shapes and name not in missing]
    if config.get("local_contrast", 1) and not any(name.startswith("local_cross_attention.") for name in shapes):
        missing.append("local_cross_attention.*")
    if any(_LAYER_INV_FREQ.fullmatch(name) for name in shapes):
        layers = range(config["protein_model_config"]["num_hidden_layers"])
        copies = [f"protein_model.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq" for i in layers]
        missing += [name for name in copies if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{path}: lacks {len(missing)} tensors, such as {', '.join(missing[:3])}; the file is incomplete or of "
            "another model. Fetch it again."
        )


def _head_shapes(
    shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the training heads that the config switches on."""
    dim, hidden = state["protein_projection.0.weight"].shape
    vocabulary = state["protein_encoder.embeddings.word_embeddings.weight"].shape[0]

    def linear(name: str, width: int, out: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}

    def head(name: str, width: int) -> dict[str, tuple[int, ...]]:
        norm = {f"{name}.2.weight": (dim,), f"{name}.2.bias": (dim,)}
        return {**linear(f"{name}.0", width, dim), **norm, **linear(f"{name}.3", dim, vocabulary)}

    prototypes = config.get("proto_num", shapes.get("proto_bank.prototype.weight", (0,))[0])
    expected = {**head("mlm_head", hidden), "proto_bank.prototype.weight": (prototypes, dim)}
    if config.get("t2p_mlm", 1):
        expected |= head("t2p_mlm_head", dim)
        for part in ("query", "key", "value"):
            expected |= linear(f"decoder.{part}", dim, dim)
    if config.get("local_contrast", 1):
        inner = shapes.get("predictor.0.weight", (dim // 2,))[0]
        expected |= {LOCAL_SCALE: (2,), **linear("predictor.0", dim, inner), **linear("predictor.2", inner, dim)}
    return expected


def _official_name(ours: str) -> str:
    for theirs, prefix in OFFICIAL_TO_OURS.items():
        if ours == prefix or (prefix.endswith(".") and ours.startswith(prefix)):
            return theirs + ours[len(prefix) :]
    return ours
