"""One optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from protclip.data.collate import Batch
from protclip.losses.total import objective_terms, total_loss
from protclip.model.dual_encoder import MAX_LOGIT_SCALE, DualEncoder
from protclip.train.state import TrainState


def train_step(state: TrainState, network: nn.Module, batch: Batch, *, group: ProcessGroup | None) -> dict[str, Tensor]:
    """Forward, backward and update; returns this worker's terms of the loss, detached.

    Their means over the workers are those of the global batch.

    Args:
        state: its optimizer and schedule are stepped.
        network: ``state.model``, wrapped by DDP where there are several workers.
        batch: this worker's part of the global batch.
        group: the workers, or None for one process.
    """
    device = batch.protein_ids_BL.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        outputs = network(batch)
    objectives = state.model.architecture.objectives
    terms = objective_terms([outputs], [batch], objectives, group=group)
    loss = total_loss(terms, objectives)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.schedule.step()
    _bound_scales(state.model)
    state.step += 1
    return {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def _bound_scales(model: DualEncoder) -> None:
    model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    if model.architecture.objectives.pda > 0:
        model.heads.segment_logit_scale.clamp_(max=MAX_LOGIT_SCALE)
