"""The authors' published checkpoint, in and out.

Source: the folder that Zhou et al. publish beside arXiv:2412.20014: ``config.json`` of model_type "FST", with the whole
configurations of both encoders, and ``model.safetensors``, in fp16.

Import widens to fp32, as the published code does; the rotary ``inv_freq`` too is taken as stored, rounded to fp16, and
not recomputed. What the method does not use, and all that export needs to write the same bytes again, is kept beside
the model in ``official_extras.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from protclip import files
from protclip.checked import Count, Size, checked
from protclip.config import ObjectivesConfig
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import CheckpointError, ConfigError, DataError, ProtclipError
from protclip.manifest import FILE_NAME, read_manifest
from protclip.model.checkpoint import load_checkpoint, read_encoder, save_checkpoint
from protclip.model.dual_encoder import Architecture
from protclip.model.encoders import Kind, known_fields
from protclip.model.official_names import LOCAL_SCALE, Plan, make_plan
from protclip.model.record import KIND
from protclip.model.tensors import open_tensors, read_header, write_data, write_header, write_tensors
from protclip.model.weights import build, empty_model

MODEL_TYPE = "FST"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXTRAS = "official_extras.safetensors"
MAX_PROTEIN_TOKENS, MAX_TEXT_TOKENS = 1024, 512
"""What the published model was trained to see."""


_TYPES = {"F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """What a safetensors header says of a tensor."""

    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Config:
    """The fields of a published config.json that are used here."""

    protein_model_config: dict[str, Any]
    text_model_config: dict[str, Any]
    projection_dim: Size
    proto_num: Size | None = None
    t2p_mlm: bool | int = 1
    local_contrast: bool | int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layers:
    num_hidden_layers: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class BesideWeights:
    """What a published checkpoint is made of beside its weights, after all was checked that can be without them."""

    config_text: str
    config: dict[str, Any]
    architecture: Architecture
    proteins: ProteinTokenizer
    texts: TextTokenizer


def read_beside_weights(
    folder: str, *, protein_tokenizer: str | None = None, text_tokenizer: str | None = None
) -> BesideWeights:
    """The published config.json, and tokenizers that fit it; the arguments and errors of ``import_official``."""
    path = files.join(folder, CONFIG)
    config_text = _read_text(path)
    config = _read_config(path, config_text)
    architecture = read_official_architecture(config, folder)
    return BesideWeights(
        config_text=config_text,
        config=config,
        architecture=architecture,
        proteins=_protein_tokenizer(protein_tokenizer, architecture),
        texts=_text_tokenizer(text_tokenizer or folder, architecture, given=text_tokenizer is not None),
    )


def import_official(
    folder: str,
    output: str,
    *,
    protein_tokenizer: str | None = None,
    text_tokenizer: str | None = None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a checkpoint folder from a published one.

    Args:
        folder: holds config.json and model.safetensors.
        output: the checkpoint folder to write.
        protein_tokenizer: a folder with vocab.txt; ESM-2's alphabet where None.
        text_tokenizer: a folder with tokenizer.json or vocab.txt; the published folder itself where None.
        source: where it was had from, as the new checkpoint's manifest and card tell; None where that is not known.

    Returns:
        What the new checkpoint's manifest records as ``official``: num_tensors, num_elements, dtypes, mapped, beside.

    Raises:
        CheckpointError: if the folder is incomplete, damaged or of another kind.
        ConfigError: if a tokenizer is needed or does not fit the encoder.
    """
    known = read_beside_weights(folder, protein_tokenizer=protein_tokenizer, text_tokenizer=text_tokenizer)
    config, architecture = known.config, known.architecture
    weights = files.join(folder, WEIGHTS)
    with open_tensors(weights) as reader:
        header = read_header(weights).decode()
        entries = _entries(header, weights)
        # The plan needs shapes alone: what the file does not hold gets no memory.
        empty = empty_model(architecture, most_layers=len(entries), path=folder).state_dict()
        plan = make_plan({name: tuple(entry.shape) for name, entry in entries.items()}, empty, config, weights)
        model = build(architecture, folder, freeze_text=True)
        _fill(model.state_dict(), plan, reader, weights)
        kept = {name: reader.get_tensor(name) for name in plan.beside}
    record = {
        "num_tensors": len(entries),
        "num_elements": sum(torch.Size(entry.shape).numel() for entry in entries.values()),
        "dtypes": sorted({entry.dtype for entry in entries.values()}),
        "mapped": plan.mapped,
        "beside": plan.beside,
    }
    files.remove(files.join(output, FILE_NAME))  # what stood there before is unfinished from here on
    write_tensors(files.join(output, EXTRAS), kept, {"config": known.config_text, "header": header})
    facts: dict[str, Any] = {"official": record, **({} if source is None else {"source": dict(source)})}
    save_checkpoint(output, model, known.proteins, known.texts, extra_files=(EXTRAS,), **facts)
    return record


def export_official(folder: str, output: str) -> int:
    """Write an imported checkpoint in the published format: the same bytes where its weights are as they were.

    Weights that changed are rounded to the published type. Returns the number of tensors.

    Raises:
        CheckpointError: if the checkpoint was not imported, or a weight is beyond the range of the published type.
    """
    manifest = read_manifest(folder, KIND, error=CheckpointError)
    if EXTRAS not in manifest["files"]:
        raise CheckpointError(
            f"{folder}: holds no {EXTRAS}; only a checkpoint made by import-official has all that the published "
            "format needs (poolers, contact head, its config)."
        )
    state = load_checkpoint(folder).model.state_dict()
    extras = files.join(folder, EXTRAS)
    with open_tensors(extras) as kept:
        metadata = kept.metadata() or {}
        header, config_text = metadata.get("header", ""), metadata.get("config", "")
        entries = _entries(header, f"{extras}, header")
        shapes = {name: tuple(entry.shape) for name, entry in entries.items()}
        plan = make_plan(shapes, state, _read_config(f"{extras}, config", config_text), extras)
        _check_kept(kept, plan, entries, extras)
        with files.atomic_write(files.join(output, WEIGHTS)) as stream:
            write_header(stream, header.encode())
            for name in sorted(entries, key=lambda name: entries[name].data_offsets):
                stored = kept.get_tensor(name) if name in plan.beside else None
                write_data(stream, _official_tensor(name, entries[name].dtype, plan, state, stored, folder))
    # Last, so that a folder without it is unfinished.
    with files.atomic_write(files.join(output, CONFIG)) as stream:
        stream.write(config_text.encode())
    return len(entries)


def read_official_architecture(config: Mapping[str, Any], folder: str) -> Architecture:
    """The network that a published config.json describes.

    Raises:
        CheckpointError: if a field is missing or cannot work.
    """
    if (kind := config["text_model_config"].get("position_embedding_type", "absolute")) != "absolute":
        raise CheckpointError(
            f"{folder}/{CONFIG}: text_model_config has {kind!r} positions; only 'absolute' are known."
        )
    protein, text = (_encoder(kind, config[f"{kind}_model_config"], folder) for kind in ("protein", "text"))
    return Architecture(
        protein=protein,
        text=text,
        projection_dim=config["projection_dim"],
        max_protein_tokens=MAX_PROTEIN_TOKENS,
        max_text_tokens=min(MAX_TEXT_TOKENS, text.max_position_embeddings),
        objectives=_objectives(config),
    )


def _objectives(config: Mapping[str, Any]) -> ObjectivesConfig:
    """The paper's objectives, without those that the published config switches off."""
    paper = ObjectivesConfig(num_prototypes=config.get("proto_num", ObjectivesConfig().num_prototypes))
    return replace(
        paper,
        bsr=paper.bsr if config.get("t2p_mlm", 1) else 0.0,
        pda=paper.pda if config.get("local_contrast", 1) else 0.0,
    )


def _fill(state: Mapping[str, Tensor], plan: Plan, reader: Any, path: str) -> None:
    """Copy the mapped tensors into the model's."""
    filled: dict[str, str] = {}
    for name, ours in plan.mapped.items():
        tensor = reader.get_tensor(name)
        if tensor.dtype not in (torch.float16, torch.float32):
            raise CheckpointError(f"{path}: {name} is of type {tensor.dtype}; float16 or float32 is needed.")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; the file is damaged.")
        if name == LOCAL_SCALE:
            tensor = tensor[0]
        if ours in filled and not torch.equal(tensor.float(), state[ours]):
            raise CheckpointError(
                f"{path}: {name} differs from {filled[ours]}; the layers' copies must be equal, the file is damaged."
            )
        state[ours].copy_(tensor)
        filled[ours] = name


def _official_tensor(
    name: str, dtype: str, plan: Plan, state: Mapping[str, Tensor], stored: Tensor | None, folder: str
) -> Tensor:
    """A tensor as the published file has it, in its type."""
    if name not in plan.mapped:
        assert stored is not None
        return stored
    ours = state[plan.mapped[name]]
    tensor = ours.to(_TYPES[dtype])
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{folder}: {plan.mapped[name]} reaches {ours.abs().max():g}, beyond {dtype}.")
    if stored is None:
        return tensor
    return torch.stack([tensor, stored[1]])  # local_logit_scale: ours, then the value that is never read


def _entries(header: str, where: str) -> dict[str, _Entry]:
    try:
        values = files.parse_json(header, where)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    tensors = {key: value for key, value in values.items() if key != "__metadata__"} if isinstance(values, dict) else {}
    return checked(dict[str, _Entry], tensors, where, error=CheckpointError)


def _check_kept(kept: Any, plan: Plan, entries: Mapping[str, _Entry], path: str) -> None:
    """Raise CheckpointError where the extras are not what the published header, which they hold too, says of them."""
    names = set(kept.keys())
    for name, entry in entries.items():
        if name in plan.mapped and entry.dtype not in _TYPES:
            raise CheckpointError(f"{path}: {name} is of type {entry.dtype}; F16 or F32 is needed. Import it again.")
        if name in plan.beside and (
            name not in names
            or kept.get_slice(name).get_dtype() != entry.dtype
            or kept.get_slice(name).get_shape() != list(entry.shape)
        ):
            raise CheckpointError(f"{path}: {name} is missing or of another shape; import the checkpoint again.")


def _read_text(path: str) -> str:
    if not files.exists(path):
        raise CheckpointError(f"{path}: is missing; a published checkpoint has {CONFIG} and {WEIGHTS}.")
    try:
        return files.read_text(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error


def _read_config(path: str, text: str) -> dict[str, Any]:
    try:
        config = files.parse_json(text, path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != MODEL_TYPE:
        hint = "; it is one of ours already" if found == "protclip" else ""
        raise CheckpointError(f"{path}: model_type is {found!r:.60}, the published one is {MODEL_TYPE!r}{hint}.")
    checked(_Config, config, path, error=CheckpointError)
    checked(_Layers, config["protein_model_config"], f"{path}, protein_model_config", error=CheckpointError)
    return dict(config)


def _encoder(kind: Kind, fields: Mapping[str, Any], folder: str) -> Any:
    try:
        return read_encoder(kind, known_fields(kind, fields))
    except ProtclipError as error:
        raise CheckpointError(f"{folder}/{CONFIG}: {kind}_model_config: {error}") from error


def _protein_tokenizer(folder: str | None, architecture: Architecture) -> ProteinTokenizer:
    limit = architecture.max_protein_tokens
    tokenizer = (
        ProteinTokenizer(max_tokens=limit) if folder is None else ProteinTokenizer.load(folder, max_tokens=limit)
    )
    config = architecture.protein
    if len(tokenizer.vocabulary) != config.vocab_size or tokenizer.pad_id != config.pad_token_id:
        raise ConfigError(
            f"the protein encoder has {config.vocab_size} tokens and pads with {config.pad_token_id}, the tokenizer "
            f"has {len(tokenizer.vocabulary)} and pads with {tokenizer.pad_id}; give its own by --protein-tokenizer."
        )
    return tokenizer


def _text_tokenizer(folder: str, architecture: Architecture, *, given: bool) -> TextTokenizer:
    if not any(files.exists(files.join(folder, name)) for name in ("tokenizer.json", "vocab.txt")):
        where = "" if given else "; the published folder has no tokenizer: give that of its text encoder (PubMedBERT)"
        raise ConfigError(
            f"{folder}: holds neither tokenizer.json nor vocab.txt of the text encoder{where} by --text-tokenizer DIR."
        )
    tokenizer = TextTokenizer.load(folder, max_tokens=architecture.max_text_tokens)
    if tokenizer.vocabulary_size > architecture.text.vocab_size:
        raise ConfigError(
            f"{folder}: its tokenizer has {tokenizer.vocabulary_size} tokens, the text encoder "
            f"{architecture.text.vocab_size}; give the encoder's own by --text-tokenizer."
        )
    return tokenizer
