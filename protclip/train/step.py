"""One optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from protclip.data.collate import Batch
from protclip.losses.global_contrast import global_contrast
from protclip.model.dual_encoder import MAX_LOGIT_SCALE
from protclip.train.state import TrainState


def train_step(state: TrainState, network: nn.Module, batch: Batch, *, group: ProcessGroup | None) -> Tensor:
    """Forward, backward and update; returns this worker's loss, detached.

    Args:
        state: its optimizer and schedule are stepped.
        network: ``state.model``, wrapped by DDP where there are several workers.
        batch: this worker's part of the global batch.
        group: the workers, or None for one process.
    """
    device = batch.protein_ids_BL.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        protein_BD, text_BD, logit_scale = network(batch)
    loss = global_contrast(protein_BD, text_BD, logit_scale, batch.identity_B2, group=group)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.schedule.step()
    with torch.no_grad():
        state.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    state.step += 1
    return loss.detach()
