"""GC: the global contrast between proteins and biotexts.

    L_GC = ½ · [CE(e^s · P·Tᵀ, diag) + CE(e^s · T·Pᵀ, diag)]

Source: Zhou et al. 2025 (arXiv:2412.20014); symmetric InfoNCE as in CLIP (Radford et al. 2021, Fig. 3).
Shapes: B pairs of this worker, N = B · workers pairs in all, D width, K identities of a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.functional import cross_entropy

from protclip import distributed
from protclip.model.dual_encoder import scale


def global_contrast(
    protein_BD: Tensor, text_BD: Tensor, logit_scale: Tensor, identity_BK: Tensor, *, group: ProcessGroup | None
) -> Tensor:
    """Symmetric InfoNCE over the pairs of all workers.

    Row i of both inputs is a pair. Every row that shares no identity with it, here or on another worker, is a
    negative; a row that does (the same biotext, or the same sequence) is neither positive nor negative.

    Args:
        protein_BD: unit-length embeddings; every worker brings the same number of rows.
        text_BD: likewise.
        logit_scale: s, the log of the inverse temperature; e^s is at most 100.
        identity_BK: integers; rows that are equal in any column are not contrasted.
        group: the workers, or None for one process.

    Returns:
        The mean over this worker's rows, fp32 at least. With DDP's average over workers the step is that of the mean
        over all N rows.
    """
    all_protein_ND = distributed.gather_rows(protein_BD, group)
    all_text_ND = distributed.gather_rows(text_BD, group)
    all_identity_NK = distributed.gather_rows(identity_BK, group)
    start = distributed.rank(group) * len(protein_BD)
    own_B = torch.arange(start, start + len(protein_BD), device=protein_BD.device)

    neither_BN = (identity_BK[:, None] == all_identity_NK[None]).any(-1)
    neither_BN[torch.arange(len(own_B), device=own_B.device), own_B] = False
    factor = scale(logit_scale)
    to_text_BN = (factor * protein_BD @ all_text_ND.T).masked_fill(neither_BN, -torch.inf)
    to_protein_BN = (factor * text_BD @ all_protein_ND.T).masked_fill(neither_BN, -torch.inf)
    return 0.5 * (cross_entropy(to_text_BN, own_B) + cross_entropy(to_protein_BN, own_B))
