"""Encoders of the ESM and BERT kind, HuggingFace's modules, by their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from protclip.errors import ConfigError
from protclip.model.bare_encoders import BareConfig, BareEncoder

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Kind = Literal["protein", "text"]
MODEL_TYPES: dict[Kind, str] = {"protein": "esm", "text": "bert"}
_UNSTABLE_KEYS = ("transformers_version", "_name_or_path", "dtype", "architectures")


def encoder_config(kind: Kind, fields: Mapping[str, Any]) -> PretrainedConfig:
    """A HuggingFace configuration from its fields; what is not given has the library's default.

    Raises:
        ConfigError: for a field that such an encoder does not have, or a value that it refuses.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import BertConfig, EsmConfig

    config_class = EsmConfig if kind == "protein" else BertConfig
    if unknown := sorted(set(fields) - set(config_class().to_dict()) - set(_UNSTABLE_KEYS)):
        raise ConfigError(
            f"model.{kind}.config: {config_class.__name__} has no field {', '.join(unknown)}; see its HuggingFace page."
        )
    try:
        return config_class(**{key: value for key, value in fields.items() if key not in _UNSTABLE_KEYS})
    except (TypeError, ValueError, StrictDataclassError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"model.{kind}.config: {config_class.__name__} refuses {dict(fields)} ({why}).") from error


def known_fields(kind: Kind, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the fields that such a configuration still has: files of old libraries hold many that none reads."""
    from transformers import BertConfig, EsmConfig

    known = set((EsmConfig if kind == "protein" else BertConfig)().to_dict()) - {"model_type", *_UNSTABLE_KEYS}
    return {key: value for key, value in fields.items() if key in known}


def build_encoder(kind: Kind, config: Any) -> nn.Module:
    """An encoder with random weights, without the parts that no objective uses (pooler, contact head)."""
    if isinstance(config, BareConfig):
        return BareEncoder(kind, config)
    from transformers import BertModel, EsmModel

    if kind == "text":
        return _module(BertModel(config, add_pooling_layer=False))
    encoder = _module(EsmModel(config, add_pooling_layer=False))
    del encoder.contact_head  # a parameter that never gets a gradient
    return encoder


def config_fields(config: PretrainedConfig | BareConfig) -> dict[str, Any]:
    """A configuration as JSON values, without what varies between library versions or machines."""
    return {key: value for key, value in config.to_dict().items() if key not in _UNSTABLE_KEYS}


def _module(module: Any) -> nn.Module:
    assert isinstance(module, nn.Module)
    return module
