"""The checkpoint folder, in HuggingFace's manner.

CHECKPOINT/
  config.json            the architecture, and the objectives whose heads are in it
  model.safetensors      all weights, keys as in DualEncoder; large ones as shards model-00001-of-0000N.safetensors
                         with model.safetensors.index.json
  protein_tokenizer/     vocab.txt, tokenizer_config.json
  text_tokenizer/        tokenizer.json, tokenizer_config.json
  README.md              the model card
  manifest.json          written last: checksums and the model's fingerprint
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from protclip import files
from protclip.config import GC_ALONE, ObjectivesConfig
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.distributed import laid_out_like
from protclip.errors import CheckpointError, ProtclipError
from protclip.manifest import read_manifest, write_manifest
from protclip.model.card import model_card
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.encoders import config_fields, encoder_config
from protclip.model.tensors import MAX_SHARD_BYTES, open_tensors, open_weights, save_weights

KIND = "checkpoint"
MODEL_TYPE = "protclip"
PROTEIN_TOKENIZER, TEXT_TOKENIZER = "protein_tokenizer", "text_tokenizer"
REQUIRED_FILES = ("config.json", f"{PROTEIN_TOKENIZER}/vocab.txt", f"{TEXT_TOKENIZER}/tokenizer.json")
"""Beside the weights, which may be one file or several."""

_NOT_IN_EMBEDDINGS = ("objectives", "attention")
"""Fields of config.json that no embedding depends on."""
_EMBEDDING_PREFIXES = ("protein_encoder.", "text_encoder.", "protein_projection.", "text_projection.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model with the tokenizers that it was trained with."""

    model: DualEncoder
    protein_tokenizer: ProteinTokenizer
    text_tokenizer: TextTokenizer
    fingerprint: str
    """SHA-256 over all that makes embeddings; training heads and the logit scale are left out."""


def save_checkpoint(
    folder: str,
    model: DualEncoder,
    protein_tokenizer: ProteinTokenizer,
    text_tokenizer: TextTokenizer,
    *,
    weights: Mapping[str, Tensor] | None = None,
    extra_files: Sequence[str] = (),
    max_shard_bytes: int = MAX_SHARD_BYTES,
    **record: Any,
) -> str:
    """Write a checkpoint folder, manifest last, and return the model's fingerprint.

    Args:
        folder: path or URL.
        model: its weights are stored in their own precision.
        weights: a copy of them that was made earlier, to be stored in their place.
        extra_files: names of files already in the folder that belong to it.
        max_shard_bytes: weights beyond it are written as several files.
        record: JSON values to keep in the manifest, such as the metrics and the run's settings; the model card tells
            of those that it knows.
    """
    config = architecture_fields(model.architecture)
    weights = model.state_dict() if weights is None else weights
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    names = [*extra_files, "config.json", "README.md"]
    names += [f"{PROTEIN_TOKENIZER}/{name}" for name in protein_tokenizer.save(files.join(folder, PROTEIN_TOKENIZER))]
    names += [f"{TEXT_TOKENIZER}/{name}" for name in text_tokenizer.save(files.join(folder, TEXT_TOKENIZER))]
    files.write_json(files.join(folder, "config.json"), config)
    names += save_weights(folder, state, max_shard_bytes=max_shard_bytes)
    fingerprint = model_fingerprint(config, protein_tokenizer, text_tokenizer, state)
    with files.atomic_write(files.join(folder, "README.md")) as stream:
        stream.write(model_card(model, fingerprint, record).encode())
    write_manifest(folder, KIND, names, fingerprint=fingerprint, **record)
    return fingerprint


def load_checkpoint(folder: str) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: if it is unfinished, damaged, or does not fit together.
    """
    manifest = read_manifest(folder, KIND, verify=True, error=CheckpointError)
    if missing := [name for name in REQUIRED_FILES if name not in manifest["files"]]:
        raise CheckpointError(f"{folder}: its manifest does not list {', '.join(missing)}; save the checkpoint again.")
    try:
        config = files.read_json(files.join(folder, "config.json"))
        architecture = read_architecture(config)
        protein_tokenizer = ProteinTokenizer.load(
            files.join(folder, PROTEIN_TOKENIZER), max_tokens=architecture.max_protein_tokens
        )
        text_tokenizer = TextTokenizer.load(files.join(folder, TEXT_TOKENIZER), max_tokens=architecture.max_text_tokens)
    except CheckpointError:
        raise
    except (ProtclipError, KeyError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    model = DualEncoder(architecture)
    load_weights(model, files.join(folder, "model.safetensors"))
    return Checkpoint(
        model=model.eval(),
        protein_tokenizer=protein_tokenizer,
        text_tokenizer=text_tokenizer,
        fingerprint=manifest["fingerprint"],
    )


def load_weights(model: DualEncoder, path: str) -> None:
    """Load ``…/model.safetensors``, or the shards in its place, into the model, a tensor at a time.

    Raises:
        CheckpointError: naming missing, unexpected or mis-shaped tensors.
    """
    wanted = model.state_dict()
    with open_weights(path) as readers:
        if missing := sorted(set(wanted) - set(readers)):
            raise CheckpointError(
                f"{path}: lacks {len(missing)} tensors, such as {missing[0]}; the file is of another model."
            )
        if extra := sorted(set(readers) - set(wanted)):
            raise CheckpointError(
                f"{path}: has {len(extra)} tensors too many, such as {extra[0]}; it is of another model."
            )
        for name, reader in readers.items():
            tensor = reader.get_tensor(name)
            if tensor.shape != wanted[name].shape:
                raise CheckpointError(
                    f"{path}: {name} has shape {tuple(tensor.shape)}, config.json asks for {tuple(wanted[name].shape)}."
                )
            wanted[name].copy_(laid_out_like(tensor, wanted[name]))


def load_tensors(path: str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: if it is missing, is not one, or is cut short.
    """
    with open_tensors(path) as reader:
        names = reader.keys()
        return {name: reader.get_tensor(name) for name in names}


def architecture_fields(architecture: Architecture) -> dict[str, Any]:
    """An architecture as the JSON values of config.json."""
    return {
        "model_type": MODEL_TYPE,
        "protein_encoder": config_fields(architecture.protein),
        "text_encoder": config_fields(architecture.text),
        "projection_dim": architecture.projection_dim,
        "max_protein_tokens": architecture.max_protein_tokens,
        "max_text_tokens": architecture.max_text_tokens,
        "objectives": asdict(architecture.objectives),
        "attention": architecture.attention,
    }


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The architecture that config.json describes.

    Raises:
        CheckpointError: if it is of another model type.
        KeyError: if a field is missing.
    """
    if config.get("model_type") != MODEL_TYPE:
        raise CheckpointError(f"config.json: model_type is {config.get('model_type')!r}, not {MODEL_TYPE!r}.")
    return Architecture(
        protein=encoder_config("protein", _without_type(config["protein_encoder"])),
        text=encoder_config("text", _without_type(config["text_encoder"])),
        projection_dim=config["projection_dim"],
        max_protein_tokens=config["max_protein_tokens"],
        max_text_tokens=config["max_text_tokens"],
        objectives=_objectives(config),
        attention=config.get("attention", "packed"),
    )


def model_fingerprint(
    config: Mapping[str, Any], protein: ProteinTokenizer, text: TextTokenizer, state: Mapping[str, Tensor]
) -> str:
    """SHA-256 over the architecture, the tokenizers and the tensors that make embeddings, as hex."""
    embedding_config = {key: value for key, value in config.items() if key not in _NOT_IN_EMBEDDINGS}
    digest = hashlib.sha256(json.dumps(embedding_config, sort_keys=True).encode())
    digest.update("\n".join(protein.vocabulary).encode())
    digest.update(text.json.encode())
    for name in sorted(state):
        if name.startswith(_EMBEDDING_PREFIXES):
            tensor = state[name]
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without_type(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != "model_type"}


def _objectives(config: Mapping[str, Any]) -> ObjectivesConfig:
    if "objectives" not in config:
        return GC_ALONE
    try:
        return ObjectivesConfig(**config["objectives"])
    except TypeError as error:
        raise CheckpointError(f"config.json: objectives={config['objectives']!r} are not known ({error}).") from error
