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

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from protclip import files
from protclip.checked import Count, Size, checked
from protclip.config import GC_ALONE, ObjectivesConfig
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import CheckpointError, ProtclipError
from protclip.manifest import FILE_NAME, read_manifest, write_manifest
from protclip.model.bare_encoders import bare_config
from protclip.model.card import model_card
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.encoders import Kind, config_fields, encoder_config
from protclip.model.record import CheckpointRecord
from protclip.model.tensors import MAX_SHARD_BYTES, open_weights, save_weights
from protclip.model.weights import build, checked_model, digest_of, fill, model_fingerprint, shapes

KIND = "checkpoint"
MODEL_TYPE = "protclip"
AUTO_CLASS = "ProtCLIPModel"
"""Of protclip.auto: what transformers' AutoModel makes of the folder."""
ENCODER_CLASSES: dict[Kind, str] = {"protein": "EsmModel", "text": "BertModel"}
PROTEIN_TOKENIZER, TEXT_TOKENIZER = "protein_tokenizer", "text_tokenizer"
REQUIRED_FILES = ("config.json", f"{PROTEIN_TOKENIZER}/vocab.txt", f"{TEXT_TOKENIZER}/tokenizer.json")
"""Beside the weights, which may be one file or several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Config:
    """config.json, but for the objectives."""

    protein_encoder: dict[str, Any]
    text_encoder: dict[str, Any]
    projection_dim: Size
    max_protein_tokens: Size
    max_text_tokens: Size
    attention: Literal["packed", "padded"] = "packed"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoder:
    """The sizes of an encoder's configuration, which its library would have defaults for, or none."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Count
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size


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


def save_encoder(
    folder: str,
    kind: Kind,
    model: DualEncoder,
    tokenizer: ProteinTokenizer | TextTokenizer,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write one encoder as a plain HuggingFace folder, which transformers reads without our code.

    Args:
        folder: path or URL.
        kind: which tower.
        model: of which it is a part.
        tokenizer: of this side.
        max_shard_bytes: weights beyond it are written as several files.
    """
    encoder: Any = model.protein_encoder if kind == "protein" else model.text_encoder
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_weights(folder, state, max_shard_bytes=max_shard_bytes)
    tokenizer.save(folder)
    files.write_json(
        files.join(folder, "config.json"),
        {"architectures": [ENCODER_CLASSES[kind]], **config_fields(encoder.config)},
    )


def load_checkpoint(folder: str) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: if it is unfinished, damaged, or does not fit together.
    """
    manifest = read_manifest(folder, KIND, verify=True, error=CheckpointError)
    fingerprint = checked(CheckpointRecord, manifest, files.join(folder, FILE_NAME), error=CheckpointError).fingerprint
    if missing := [name for name in REQUIRED_FILES if name not in manifest["files"]]:
        raise CheckpointError(f"{folder}: its manifest does not list {', '.join(missing)}; save the checkpoint again.")
    try:
        config = files.read_json(files.join(folder, "config.json"))
        architecture = read_architecture(config)
        protein_tokenizer, text_tokenizer = load_tokenizers(folder, architecture)
        text_state = files.read_text(files.join(folder, TEXT_TOKENIZER, "tokenizer.json"))
        _check_tokens(architecture, protein_tokenizer, text_tokenizer)
    except ProtclipError as error:
        where = "" if folder in str(error) else f"{folder}: "
        raise CheckpointError(f"{where}{error}") from error
    with open_weights(files.join(folder, "model.safetensors")) as readers:
        model = checked_model(architecture, shapes(readers), folder)
        if architecture.attention == "packed":  # all its numbers are stored, so that none has to be drawn before
            memory = {
                name: torch.empty(weight.shape, dtype=weight.dtype) for name, weight in model.state_dict().items()
            }
            model.load_state_dict(memory, assign=True)
        else:
            model = build(architecture, folder)
        digest = digest_of(config, protein_tokenizer, text_state)
        fill(model.state_dict(), readers, digest)
    if digest.hexdigest() != fingerprint:
        raise CheckpointError(
            f"{folder}: its weights, tokenizers and config.json are the model {digest.hexdigest()}, and manifest.json "
            f"calls it {fingerprint}; something was altered. Restore the checkpoint or save it again."
        )
    return Checkpoint(
        model=model.eval(),
        protein_tokenizer=protein_tokenizer,
        text_tokenizer=text_tokenizer,
        fingerprint=fingerprint,
    )


def load_tokenizers(folder: str, architecture: Architecture) -> tuple[ProteinTokenizer, TextTokenizer]:
    """The tokenizers of a checkpoint folder.

    Raises:
        ProtclipError: if they cannot be read, or are none.
    """
    protein = ProteinTokenizer.load(files.join(folder, PROTEIN_TOKENIZER), max_tokens=architecture.max_protein_tokens)
    text = TextTokenizer.load(files.join(folder, TEXT_TOKENIZER), max_tokens=architecture.max_text_tokens)
    return protein, text


def _check_tokens(architecture: Architecture, protein: ProteinTokenizer, text: TextTokenizer) -> None:
    for kind, num_tokens, num_rows in (
        ("protein", len(protein.vocabulary), architecture.protein.vocab_size),
        ("text", text.largest_id + 1, architecture.text.vocab_size),
    ):
        if num_tokens > num_rows:
            raise CheckpointError(
                f"the {kind} tokenizer has tokens up to number {num_tokens - 1}, and the encoder's table "
                f"{num_rows} rows; they belong to two models. Restore the folder."
            )
    if architecture.max_text_tokens > architecture.text.max_position_embeddings:
        raise CheckpointError(
            f"config.json: max_text_tokens={architecture.max_text_tokens} is above the text encoder's "
            f"{architecture.text.max_position_embeddings} positions; restore the file."
        )


def architecture_fields(architecture: Architecture) -> dict[str, Any]:
    """An architecture as the JSON values of config.json."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": [AUTO_CLASS],
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
    found = config.get("model_type") if isinstance(config, Mapping) else None
    if found != MODEL_TYPE:
        raise CheckpointError(f"config.json: model_type is {found!r:.60}, not {MODEL_TYPE!r}.")
    fields = checked(_Config, config, "config.json", error=CheckpointError)
    return Architecture(
        protein=read_encoder("protein", fields.protein_encoder, bare=fields.attention == "packed"),
        text=read_encoder("text", fields.text_encoder, bare=fields.attention == "packed"),
        projection_dim=fields.projection_dim,
        max_protein_tokens=fields.max_protein_tokens,
        max_text_tokens=fields.max_text_tokens,
        objectives=_objectives(config),
        attention=fields.attention,
    )


def read_encoder(kind: Kind, fields: Mapping[str, Any], *, bare: bool = False) -> Any:
    """An encoder's configuration from a file.

    Args:
        kind: which encoder.
        fields: as the file has them.
        bare: without HuggingFace's classes, which the packed forward does not need.

    Raises:
        CheckpointError: for a number beyond what any encoder has, or what the library cannot make sense of.
        ConfigError: as ``encoder_config``.
    """
    where = f"config.json, {kind} encoder"
    checked(_Encoder, fields, where, error=CheckpointError)
    for name, value in fields.items():
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise CheckpointError(f"config.json: {kind} encoder: {name} is {value!r:.60}; restore the file.")
    if bare:
        return bare_config(fields, where)
    try:
        return encoder_config(kind, _without_type(fields))
    except ProtclipError:
        raise
    except Exception as error:  # the library checks some fields, and uses the others as they come
        raise CheckpointError(f"config.json: {kind} encoder: {error}; restore the file.") from error


def _without_type(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != "model_type"}


def _objectives(config: Mapping[str, Any]) -> ObjectivesConfig:
    if "objectives" not in config:
        return GC_ALONE
    known = {field.name for field in dataclasses.fields(ObjectivesConfig)}
    if not isinstance(values := config["objectives"], dict) or set(values) - known:
        raise CheckpointError(f"config.json: objectives={values!r:.200} are not known; allowed: {', '.join(known)}.")
    return checked(ObjectivesConfig, values, "config.json, objectives", error=CheckpointError)
