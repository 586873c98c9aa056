"""MLM: masked residues from the rest of the sequence.

    L_MLM = − mean over masked residues of log softmax(head(h))[residue]

Source: Zhou et al. 2025 (arXiv:2412.20014); Devlin et al. 2019. Here every chosen residue becomes ``<mask>``.
Shapes: B pairs of this worker, Q masked residues of the protein that has most, V tokens.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip.data.collate import NO_TARGET


def masked_residues(logits_BQV: Tensor, target_BQ: Tensor, *, mean_count: Tensor) -> Tensor:
    """Cross-entropy at the masked residues.

    Args:
        logits_BQV: of the head, fp32 at least.
        target_BQ: token ids; NO_TARGET where there is no masked residue.
        mean_count: masked residues of the global batch, all micro-batches, divided by the number of workers.

    Returns:
        This worker's sum divided by ``mean_count``. DDP's average over workers makes it the mean over the masked
        residues of the global batch, and micro-batches add up to the same. Zero where nothing is masked.
    """
    total = cross_entropy(logits_BQV.flatten(0, 1), target_BQ.flatten(), ignore_index=NO_TARGET, reduction="sum")
    return total / mean_count.to(total.dtype)
