"""The objectives beside the global contrast, on validation pairs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.distributed import ProcessGroup

from protclip import distributed
from protclip.data.collate import Batch, TermCounts
from protclip.losses.total import counted_terms, weights
from protclip.model.dual_encoder import DualEncoder


def validation_terms(model: DualEncoder, batches: Iterable[Batch], *, group: ProcessGroup | None) -> dict[str, float]:
    """bsr, pda and mlm, as far as they are on: means over all that counts in the batches of all workers.

    Args:
        model: in evaluation mode, so without noise; not wrapped, since workers may have different numbers of batches.
        batches: this worker's.
        group: the workers, or None for one process.
    """
    assert not model.training
    objectives = model.architecture.objectives
    names = list(weights(objectives))
    if not names:
        return {}
    device = model.logit_scale.device
    sums = torch.zeros(len(names), dtype=torch.float64, device=device)
    counts_3 = torch.zeros(len(TermCounts._fields), dtype=torch.float64)
    ones = TermCounts(*torch.ones_like(counts_3, device=device).unbind())
    with torch.inference_mode():
        for batch in batches:
            terms = counted_terms([model(batch)], [batch], objectives, counts=ones, group=None)
            sums += torch.stack([terms[name] for name in names])
            counts_3 += torch.tensor(batch.counts)
    sums, counts_3 = (distributed.mean_over_workers(values, group) for values in (sums, counts_3.to(device)))
    count = TermCounts(*counts_3.tolist())._asdict()
    return {name: value / max(count[name], 1.0) for name, value in zip(names, sums.tolist(), strict=True)}
