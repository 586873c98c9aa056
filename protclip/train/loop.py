"""The training loop over epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from tqdm import tqdm

from protclip import distributed
from protclip.data.collate import Batch
from protclip.losses.total import with_loss
from protclip.train.state import TrainState
from protclip.train.step import train_step


def fit(
    state: TrainState,
    network: nn.Module,
    *,
    batches: Callable[[int, int], Iterator[Batch]],
    end_epoch: Callable[[TrainState, dict[str, float]], None],
    epochs: int,
    batches_per_epoch: Sequence[int],
    group: ProcessGroup | None,
    log: Callable[[str], None],
    log_every_s: float,
) -> None:
    """Train from where the state stands to the last epoch.

    Args:
        state: model, optimizer and place in the stream; changed in place.
        network: ``state.model``, wrapped by DDP where there are several workers.
        batches: (epoch, first batch) → this worker's batches from there to the epoch's end, on the device.
        end_epoch: called on every worker after each epoch with the mean of each term over its steps and all workers,
            and their weighted sum as ``loss``; it measures and saves.
        epochs: passes in all.
        batches_per_epoch: global batches of each epoch.
        group: the workers, or None for one process.
        log: takes a line of progress.
        log_every_s: seconds between two lines.
    """
    started = last_line = time.monotonic()
    first_step = state.step
    objectives = state.model.architecture.objectives
    while state.epoch < epochs:
        network.train()
        steps: list[dict[str, Tensor]] = []
        for batch in batches(state.epoch, state.batch):
            steps.append(train_step(state, network, batch, group=group))
            state.batch += 1
            if (now := time.monotonic()) - last_line >= log_every_s:
                last_line = now
                line = _line(
                    state,
                    with_loss({name: term.item() for name, term in steps[-1].items()}, objectives),
                    steps_per_s=(state.step - first_step) / (now - started),
                    num_pairs=batch.num_pairs * distributed.world_size(group),
                    total_steps=sum(batches_per_epoch),
                    epochs=epochs,
                )
                log(line)
        assert state.batch == batches_per_epoch[state.epoch], "the stream ended early"
        terms_ST = torch.stack([torch.stack(list(terms.values())) for terms in steps])
        means = distributed.mean_over_workers(terms_ST.double().mean(0), group).tolist()
        state.epoch, state.batch = state.epoch + 1, 0
        network.eval()
        end_epoch(state, with_loss(dict(zip(steps[-1], means, strict=True)), objectives))


def _line(
    state: TrainState,
    losses: dict[str, float],
    *,
    steps_per_s: float,
    num_pairs: int,
    total_steps: int,
    epochs: int,
) -> str:
    values = {
        "epoch": f"{state.epoch + 1}/{epochs}",
        "step": f"{state.step}/{total_steps}",
        # With the contrast alone, gc is the loss.
        **{name: f"{loss:.3f}" for name, loss in losses.items() if name != "gc" or len(losses) > 2},
        "pairs/s": f"{steps_per_s * num_pairs:.0f}",
        "ETA": tqdm.format_interval((total_steps - state.step) / steps_per_s),
    }
    return "  ".join(f"{name} {value}" for name, value in values.items())
