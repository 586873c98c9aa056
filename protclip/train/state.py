"""What training is made of between two steps, and its files in a checkpoint folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from protclip import files
from protclip.errors import CheckpointError
from protclip.model.checkpoint import load_tensors, load_weights
from protclip.model.dual_encoder import DualEncoder
from protclip.model.tensors import write_tensors

TENSORS, PROGRESS = "trainer.safetensors", "trainer.json"


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Model, optimizer and the place in the stream."""

    model: DualEncoder
    optimizer: Optimizer
    schedule: LambdaLR
    epoch: int = 0
    """The epoch to go on with, from 0."""
    batch: int = 0
    """The global batch of that epoch to go on with, from 0."""
    step: int = 0
    """Optimizer steps made."""


def save_trainer(folder: str, state: TrainState) -> None:
    """Write the optimizer's state and the place in the stream beside the model."""
    optimizer = state.optimizer.state_dict()
    tensors, values = _split(optimizer["state"])
    write_tensors(files.join(folder, TENSORS), tensors)
    progress = {
        "epoch": state.epoch,
        "batch": state.batch,
        "step": state.step,
        "optimizer": {"param_groups": optimizer["param_groups"], "values": values},
        "schedule": {"last_epoch": state.schedule.last_epoch},
    }
    files.write_json(files.join(folder, PROGRESS), progress)


def load_trainer(folder: str, state: TrainState) -> None:
    """Put a checkpoint's weights, optimizer state and place in the stream into the state.

    Raises:
        CheckpointError: if the checkpoint is of another model or another version of the software.
    """
    load_weights(state.model, files.join(folder, "model.safetensors"))
    progress = files.read_json(files.join(folder, PROGRESS))
    optimizer_state: dict[int, dict[str, Any]] = {}
    for name, tensor in load_tensors(files.join(folder, TENSORS)).items():
        index, key = name.split(".", 1)
        optimizer_state.setdefault(int(index), {})[key] = tensor
    try:
        for index, values in progress["optimizer"]["values"].items():
            optimizer_state.setdefault(int(index), {}).update(values)
        groups = progress["optimizer"]["param_groups"]
        state.optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
        state.schedule.last_epoch = progress["schedule"]["last_epoch"]
        state.epoch, state.batch, state.step = progress["epoch"], progress["batch"], progress["step"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{folder}: the trainer's state does not fit this run ({error}).") from error


def _split(state: dict[int, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entry in state.items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value.detach().cpu().contiguous()
            else:
                values.setdefault(str(index), {})[key] = value
    return tensors, values
