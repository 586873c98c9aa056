"""What a checkpoint folder says of its model, read without torch and without loading it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protclip import files
from protclip.checked import Sha256, Size, checked
from protclip.errors import CheckpointError, DataError
from protclip.manifest import FILE_NAME, path_inside, read_manifest

KIND = "checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointRecord:
    """What the manifest of a checkpoint says of its model."""

    fingerprint: Sha256
    metrics: Any = None
    """What evaluation found, as whoever saved it recorded it."""
    data: Any = None
    """What the model was trained on, likewise."""


def read_checkpoint_record(folder: str, *, verify: bool = False) -> CheckpointRecord:
    """What a checkpoint's manifest says of its model, without loading the model; ``verify`` compares checksums too.

    Raises:
        CheckpointError: if the folder is unfinished or not a checkpoint.
    """
    manifest = read_manifest(folder, KIND, verify=verify, error=CheckpointError)
    return checked(CheckpointRecord, manifest, files.join(folder, FILE_NAME), error=CheckpointError)


def read_checkpoint_fingerprint(folder: str, *, verify: bool = False) -> str:
    """The fingerprint of a checkpoint's model, likewise."""
    return read_checkpoint_record(folder, verify=verify).fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class _Width:
    """Of an encoder."""

    hidden_size: Size


@dataclass(frozen=True, kw_only=True, slots=True)
class _Objectives:
    """Those that a job has to know of."""

    gc_prefixes: tuple[Size, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSizes:
    """What a job has to know of a model beforehand; all of config.json is checked where the model is loaded."""

    projection_dim: Size
    max_protein_tokens: Size
    protein_encoder: _Width
    text_encoder: _Width
    objectives: _Objectives = field(default_factory=_Objectives)

    @property
    def trained_dimensions(self) -> tuple[int, ...]:
        """Widths that embeddings were trained at, the whole one last."""
        return self.objectives.gc_prefixes or (self.projection_dim,)


def read_model_sizes(folder: str) -> ModelSizes:
    """The sizes in a checkpoint's config.json, without loading the model.

    Raises:
        CheckpointError: if they are not there.
    """
    path = path_inside(folder, "config.json", error=CheckpointError)
    try:
        return checked(ModelSizes, files.read_json(path), path, error=CheckpointError)
    except DataError as error:
        raise CheckpointError(str(error)) from error
