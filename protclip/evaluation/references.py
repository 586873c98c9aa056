"""What a checkpoint is held against: its encoders before the pretraining, and random weights of its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from protclip import files
from protclip.checkpoints import checkpoint_folder
from protclip.errors import ConfigError
from protclip.evaluation.results import ModelResult, Role
from protclip.manifest import FILE_NAME, read_manifest
from protclip.model.checkpoint import load_checkpoint, save_checkpoint
from protclip.model.dual_encoder import DualEncoder
from protclip.model.encoders import Kind, config_fields, encoder_config, known_fields
from protclip.model.pretrained import load_pretrained
from protclip.model.record import KIND, read_checkpoint_fingerprint
from protclip.terminal import echo

KINDS: tuple[Kind, ...] = ("protein", "text")


def named_models(checkpoints: tuple[str, ...]) -> list[ModelResult]:
    """The checkpoints with names of their own: their last folders, as far back as they differ.

    Raises:
        ConfigError: if one is given twice, or cannot be fetched.
        CheckpointError: if one is none.
    """
    parts = [checkpoint.rstrip("/").split("/") for checkpoint in checkpoints]
    depth = 1
    while len({"/".join(names[-depth:]) for names in parts}) < len(checkpoints):
        depth += 1
        if depth > max(map(len, parts)):
            raise ConfigError(f"checkpoints {', '.join(checkpoints)}: one of them is given twice; leave it out.")
    return [
        ModelResult(
            name="/".join(names[-depth:]),
            role="checkpoint",
            checkpoint=checkpoint,
            fingerprint=read_checkpoint_fingerprint(checkpoint_folder(checkpoint)),
        )
        for checkpoint, names in zip(checkpoints, parts, strict=True)
    ]


def write_references(model: ModelResult, folder: str, *, seed: int) -> Iterator[tuple[ModelResult, str]]:
    """The references of a checkpoint, each with the folder that it is in; those that are there are not made again.

    Args:
        model: of the checkpoint.
        folder: to put them into.
        seed: of random weights.
    """
    source = checkpoint_folder(model.checkpoint)
    pretrained = _pretrained(read_manifest(source, KIND))
    references: tuple[tuple[Role, dict[Kind, str]], ...] = (("not pretrained", pretrained), ("untrained", {}))
    for role, names in references:
        if role == "not pretrained" and not names:  # it began with random weights
            continue
        path = files.join(folder, role.replace(" ", "-"))
        if not files.exists(files.join(path, FILE_NAME)):
            try:
                _write(source, path, names, seed=seed)
            except ConfigError as error:  # the encoders are no longer there
                echo(f"evaluate: {model.name}, {role}, is left out: {error}", err=True)
                continue
        yield (
            ModelResult(
                name=f"{model.name}, {role}",
                role=role,
                checkpoint=model.checkpoint,
                fingerprint=read_checkpoint_fingerprint(path),
            ),
            path,
        )


def _write(source: str, target: str, pretrained: Mapping[Kind, str], *, seed: int) -> None:
    checkpoint = load_checkpoint(source)
    loaded = checkpoint.model.architecture
    # A loaded model has encoders without an initialisation.
    architecture = replace(
        loaded,
        protein=encoder_config("protein", known_fields("protein", config_fields(loaded.protein))),
        text=encoder_config("text", known_fields("text", config_fields(loaded.text))),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DualEncoder(architecture)
    for kind, name in pretrained.items():
        load_pretrained(kind, model.protein_encoder if kind == "protein" else model.text_encoder, name)
    save_checkpoint(target, model, checkpoint.protein_tokenizer, checkpoint.text_tokenizer)


def _pretrained(manifest: Mapping[str, Any]) -> dict[Kind, str]:
    """The encoders that a pretraining began with, as its checkpoint records them."""
    model = (manifest.get("run") or {}).get("model") or {}
    found = {kind: (model.get(kind) or {}).get("pretrained") for kind in KINDS}
    return {kind: name for kind, name in found.items() if name}
