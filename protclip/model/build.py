"""A new model from settings: its tokenizers, its architecture, its first weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from protclip.config import GC_ALONE, ModelConfig, ObjectivesConfig
from protclip.data.tokenize import ESM2_VOCABULARY, ProteinTokenizer, TextTokenizer
from protclip.errors import ConfigError
from protclip.inputs import Dtype
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.encoders import encoder_config
from protclip.model.packed import check_packable
from protclip.model.pretrained import check_pretrained, load_pretrained, pretrained_config, pretrained_tokenizer

NO_DROPOUT = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
"""As in ESM-2; a run then depends on its seed alone, not on when it was interrupted."""

# What an encoder over ESM-2's alphabet needs; HuggingFace's defaults leave these open.
ESM2_FIELDS = {
    "vocab_size": len(ESM2_VOCABULARY),
    "mask_token_id": ESM2_VOCABULARY.index("<mask>"),
    "pad_token_id": ESM2_VOCABULARY.index("<pad>"),
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
    **NO_DROPOUT,
}


def build_text_tokenizer(config: ModelConfig, texts: Iterable[str]) -> TextTokenizer:
    """The published encoder's tokenizer, or a WordPiece one learned from the texts where there is none.

    Raises:
        ConfigError: if the published one cannot be had.
    """
    if config.text.pretrained is None:
        assert config.text.config is not None
        size = config.text.config.get("vocab_size")
        if not isinstance(size, int):
            raise ConfigError(
                f"model.text.config.vocab_size={size!r}: the number of WordPiece tokens to learn is needed."
            )
        return TextTokenizer.train(texts, vocabulary_size=size, max_tokens=config.text.max_tokens)
    return pretrained_tokenizer(config.text.pretrained, max_tokens=config.text.max_tokens)


def build_architecture(
    config: ModelConfig, text_tokenizer: TextTokenizer, objectives: ObjectivesConfig = GC_ALONE
) -> Architecture:
    """The network's shape, with the heads of the objectives that are on.

    Raises:
        ConfigError: if an encoder's configuration cannot work with its tokenizer or its longest input.
    """
    if config.protein.pretrained is None:
        protein = encoder_config("protein", {**ESM2_FIELDS, **(config.protein.config or {})})
    else:
        protein = pretrained_config("protein", config.protein.pretrained)
    if config.text.pretrained is None:
        # The tokenizer may have learned fewer tokens than were asked for.
        learned = {"vocab_size": text_tokenizer.vocabulary_size, "pad_token_id": 0}
        fields = {**NO_DROPOUT, **(config.text.config or {}), **learned}
        text = encoder_config("text", fields)
    else:
        text = pretrained_config("text", config.text.pretrained)
    if config.text.max_tokens > text.max_position_embeddings:
        raise ConfigError(
            f"model.text.max_tokens={config.text.max_tokens} is above the encoder's {text.max_position_embeddings} "
            "positions (max_position_embeddings); lower it."
        )
    if text_tokenizer.vocabulary_size > text.vocab_size:
        raise ConfigError(
            f"the text tokenizer has {text_tokenizer.vocabulary_size} tokens and the text encoder embeddings of "
            f"{text.vocab_size}; model.text.pretrained={config.text.pretrained!r} needs the tokenizer that it was "
            "trained with."
        )
    for name in ("vocab_size", "pad_token_id", "mask_token_id"):
        if (found := getattr(protein, name)) != ESM2_FIELDS[name]:
            raise ConfigError(
                f"the protein encoder has {name}={found}; ESM-2's alphabet, by which proteins are read, has "
                f"{ESM2_FIELDS[name]}."
            )
    if config.attention == "packed":
        check_packable("protein", protein, training=True)
        check_packable("text", text, training=config.text.pretrained is None)
    return Architecture(
        protein=protein,
        text=text,
        projection_dim=config.projection_dim,
        max_protein_tokens=config.protein.max_tokens,
        max_text_tokens=config.text.max_tokens,
        objectives=objectives,
        attention=config.attention,
    )


def check_architecture(config: ModelConfig, architecture: Architecture) -> None:
    """Build the network without memory for its weights, to see that it can be built, and look at the published ones.

    Raises:
        ConfigError: if the sizes do not go together, or a published encoder is not whole.
    """
    try:
        with torch.device("meta"):
            DualEncoder(architecture)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError, AssertionError) as error:
        raise ConfigError(
            f"the model cannot be built ({error}); check model.protein.config and model.text.config."
        ) from error
    if config.protein.pretrained is not None:
        check_pretrained("protein", config.protein.pretrained, architecture.protein)
    if config.text.pretrained is not None:
        check_pretrained("text", config.text.pretrained, architecture.text)


def build_protein_tokenizer(config: ModelConfig) -> ProteinTokenizer:
    """ESM-2's alphabet with the settings' truncation."""
    return ProteinTokenizer(max_tokens=config.protein.max_tokens)


def build_model(
    config: ModelConfig, architecture: Architecture, *, seed: int, precision: Dtype = "float32"
) -> DualEncoder:
    """The network with published weights where named and seeded random ones elsewhere.

    A text encoder with published weights is frozen. The precision is that of its training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        freeze_text = config.text.pretrained is not None
        model = DualEncoder(architecture, freeze_text=freeze_text, precision=precision)
    if config.protein.pretrained is not None:
        load_pretrained("protein", model.protein_encoder, config.protein.pretrained)
    if config.text.pretrained is not None:
        load_pretrained("text", model.text_encoder, config.text.pretrained)
    if config.activation_checkpointing:
        encoders: list[Any] = [model.protein_encoder, model.text_encoder]
        for encoder in encoders[: 1 if config.text.pretrained is not None else 2]:
            encoder.activation_checkpointing_enable()
    return model
