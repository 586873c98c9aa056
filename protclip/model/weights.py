"""Weights from files into the network: their shapes are compared before memory is taken, and they make the fingerprint.

The fingerprint of a model is computed again from what is read, at the speed of SHA-256: 0.5 to 2 s for each GB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import CheckpointError
from protclip.layout import laid_out_like
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.tensors import open_weights

MAX_TABLE = 1 << 24
"""Numbers of tables beside the weights, such as one of positions."""

_NOT_IN_EMBEDDINGS = ("objectives", "attention", "architectures")
"""Fields of config.json that no embedding depends on."""
_EMBEDDING_PREFIXES = ("protein_encoder.", "text_encoder.", "protein_projection.", "text_projection.")


def load_weights(model: nn.Module, path: str) -> None:
    """Load ``…/model.safetensors``, or the shards in its place, into the model, a tensor at a time.

    Raises:
        CheckpointError: naming missing, unexpected or mis-shaped tensors.
    """
    state = model.state_dict()
    with open_weights(path) as readers:
        _check_shapes(state, shapes(readers), path)
        fill(state, readers, None)


def checked_model(architecture: Architecture, found: Mapping[str, tuple[int, ...]], path: str) -> DualEncoder:
    """The network without memory for its weights, which has the tensors that there are.

    Args:
        architecture: as a file says.
        found: shapes of the tensors of another file.
        path: for messages.

    Raises:
        CheckpointError: if the network cannot be built, or needs other tensors.
    """
    model = empty_model(architecture, most_layers=len(found), path=path)
    _check_shapes(model.state_dict(), found, path)
    return model


def empty_model(architecture: Architecture, *, most_layers: int, path: str) -> DualEncoder:
    """The network without memory for its weights.

    Raises:
        CheckpointError: if it cannot be built, has more layers than allowed, or tables beside its weights that no model
            of the kind has.
    """
    for kind, encoder in (("protein", architecture.protein), ("text", architecture.text)):
        if not 0 <= encoder.num_hidden_layers <= most_layers:
            raise CheckpointError(
                f"{path}: config.json asks for {encoder.num_hidden_layers} layers of the {kind} encoder, and there are "
                f"{most_layers} tensors in all; one of the files was altered."
            )
    model = build(architecture, path, device="meta")
    stored = set(model.state_dict())
    beside = sum(table.numel() for name, table in model.named_buffers() if name not in stored)
    if beside > MAX_TABLE:
        raise CheckpointError(
            f"{path}: config.json asks for tables of {beside:,} numbers beside the weights (max_position_embeddings), "
            f"allowed are {MAX_TABLE:,}; restore the file."
        )
    return model


def build(architecture: Architecture, path: str, *, device: str = "cpu", freeze_text: bool = False) -> DualEncoder:
    """The network that a file describes, with weights of no meaning.

    Raises:
        CheckpointError: if it cannot be built.
    """
    try:
        with torch.device(device):
            return DualEncoder(architecture, freeze_text=freeze_text)
    except Exception as error:  # the libraries check little, and raise whatever comes of it
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path}: no model can be built from config.json ({why}); restore the file.") from error


def shapes(readers: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, from the headers alone."""
    return {name: tuple(reader.get_slice(name).get_shape()) for name, reader in readers.items()}


def _check_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]], path: str) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise CheckpointError(
            f"{path}: lacks {len(missing)} tensors, such as {missing[0]}; the file is of another model."
        )
    if extra := sorted(set(found) - set(wanted)):
        raise CheckpointError(f"{path}: has {len(extra)} tensors too many, such as {extra[0]}; it is of another model.")
    for name, shape in found.items():
        if shape != tuple(wanted[name].shape):
            raise CheckpointError(
                f"{path}: {name} has shape {shape}, config.json asks for {tuple(wanted[name].shape)}."
            )


def fill(state: Mapping[str, Tensor], readers: Mapping[str, Any], digest: hashlib._Hash | None) -> None:
    """Copy the stored tensors, one at a time, and add those that make embeddings to a digest, if one is wanted."""
    for name in sorted(readers):
        tensor = readers[name].get_tensor(name)
        if digest is not None:
            _add_tensor(digest, name, tensor)
        state[name].copy_(laid_out_like(tensor, state[name]))


def model_fingerprint(
    config: Mapping[str, Any], protein: ProteinTokenizer, text: TextTokenizer, state: Mapping[str, Tensor]
) -> str:
    """SHA-256 over the architecture, the tokenizers and the tensors that make embeddings, as hex."""
    digest = digest_of(config, protein, text.json)
    for name in sorted(state):
        _add_tensor(digest, name, state[name])
    return digest.hexdigest()


def digest_of(config: Mapping[str, Any], protein: ProteinTokenizer, text_state: str) -> hashlib._Hash:
    """The digest of a model but for its tensors, from the values of config.json and the text of tokenizer.json."""
    embedding_config = {key: value for key, value in config.items() if key not in _NOT_IN_EMBEDDINGS}
    digest = hashlib.sha256(json.dumps(embedding_config, sort_keys=True).encode())
    digest.update("\n".join(protein.vocabulary).encode())
    digest.update(text_state.encode())
    return digest


def _add_tensor(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    if name.startswith(_EMBEDDING_PREFIXES):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
