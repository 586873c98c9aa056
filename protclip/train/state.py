"""What training is made of between two steps, and its files in a checkpoint folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from protclip import files, layout
from protclip.errors import CheckpointError
from protclip.model.tensors import load_tensors, write_tensors
from protclip.model.weights import load_weights

TENSORS, PROGRESS = "trainer.safetensors", "trainer.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedStep:
    """A step whose gradient was not finite."""

    step: int
    epoch: int
    accessions: list[str]
    """Of the rows whose own outputs were not finite; empty where it is only all of them together that were not."""


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Model, optimizer and the place in the stream; the same on every worker.

    There is no random state: masks, noise and order are functions of (seed, epoch, accession).
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: Callable[[int], float]
    """Step, from 0 → learning rate."""
    epoch: int = 0
    """The epoch to go on with, from 0."""
    batch: int = 0
    """The global batch of that epoch to go on with, from 0."""
    step: int = 0
    """Steps made, skipped ones too."""
    sums: Counter[str] = field(default_factory=Counter)
    """Of each term of the loss over the steps of the unfinished epoch."""
    num_summed: int = 0
    """Those steps, skipped ones left out."""
    skipped: list[SkippedStep] = field(default_factory=list)
    best_cost: float = float("inf")
    """Lowest cost of an epoch so far, of what it was selected by."""
    best_epoch: int = 0
    """The epoch that had it, from 1; 0 before the first."""

    def note_validation(self, cost: float) -> None:
        """Remember the epoch that ended if it is the best one, by ``selection.cost``."""
        if cost < self.best_cost:
            self.best_cost, self.best_epoch = cost, self.epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A state as it was at one moment, in memory of its own on the CPU."""

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    progress: Mapping[str, Any]


def take_snapshot(state: TrainState, *, keep: bool = True) -> Snapshot:
    """Copy what the next step changes.

    Where the model is sharded all workers have to call together; those with ``keep`` false only give their part.
    """

    def copied(tensor: Tensor, *, constant: bool = False) -> Tensor:
        whole = layout.gathered(tensor).detach()
        return whole.to("cpu", copy=not constant).contiguous() if keep else whole.new_empty(0)

    optimizer = state.optimizer.state_dict()
    tensors, values = _split(optimizer["state"], copied)
    frozen = {name for name, parameter in state.model.named_parameters() if not parameter.requires_grad}
    weights = {name: copied(tensor, constant=name in frozen) for name, tensor in state.model.state_dict().items()}
    progress = {
        "epoch": state.epoch,
        "batch": state.batch,
        "step": state.step,
        "sums": dict(state.sums),
        "num_summed": state.num_summed,
        "skipped": [{name: getattr(one, name) for name in one.__slots__} for one in state.skipped],
        "best": {"cost": state.best_cost, "epoch": state.best_epoch} if state.best_epoch else None,
        "optimizer": {"param_groups": optimizer["param_groups"], "values": values},
    }
    return Snapshot(weights=weights, optimizer=tensors, progress=progress)


def save_trainer(folder: str, snapshot: Snapshot) -> None:
    """Write the optimizer's state and the place in the stream beside the model."""
    write_tensors(files.join(folder, TENSORS), snapshot.optimizer)
    files.write_json(files.join(folder, PROGRESS), snapshot.progress)


def load_trainer(folder: str, state: TrainState) -> None:
    """Put a checkpoint's weights, optimizer state and place in the stream into the state.

    Raises:
        CheckpointError: if the checkpoint is of another model or another version of the software.
    """
    load_weights(state.model, files.join(folder, "model.safetensors"))
    progress = files.read_json(files.join(folder, PROGRESS))
    optimizer_state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    try:
        for name, tensor in load_tensors(files.join(folder, TENSORS)).items():
            index, key = name.split(".", 1)
            parameter = parameters[int(index)]
            moment = tensor if tensor.shape != parameter.shape else layout.laid_out_like(tensor, parameter)
            optimizer_state.setdefault(int(index), {})[key] = moment
        for index, values in progress["optimizer"]["values"].items():
            optimizer_state.setdefault(int(index), {}).update(values)
        groups = progress["optimizer"]["param_groups"]
        state.optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
        state.epoch, state.batch, state.step = progress["epoch"], progress["batch"], progress["step"]
        state.sums, state.num_summed = Counter(progress["sums"]), progress["num_summed"]
        state.skipped = [SkippedStep(**fields) for fields in progress["skipped"]]
        if best := progress["best"]:
            # Runs of earlier versions selected by loss alone, and called it so.
            state.best_cost, state.best_epoch = best["cost" if "cost" in best else "loss"], best["epoch"]
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{folder}: the trainer's state does not fit this run ({error}).") from error


def _split(
    state: Mapping[int, Mapping[str, Any]], copied: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entry in state.items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = copied(value)
            else:
                values.setdefault(str(index), {})[key] = value
    return tensors, values
