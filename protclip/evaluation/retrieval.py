"""Retrieval between proteins and texts of a held-out set.

Shapes: N pairs, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from protclip.losses.global_contrast import global_contrast

CUTOFFS = (1, 5, 10)
_ROWS_PER_BLOCK = 1024


def retrieval_metrics(protein_ND: Tensor, text_ND: Tensor, text_hash_N: Tensor) -> dict[str, dict[str, float]]:
    """recall@1/5/10, median rank and mean reciprocal rank, text → protein and protein → text.

    A candidate counts as right if its biotext equals that of the query's pair. The rank of the best right candidate
    is 1 + the number of wrong candidates that score at least as high, so that a collapsed model gains nothing from
    ties.
    """
    return {
        "text_to_protein": _metrics(_ranks(text_ND, protein_ND, text_hash_N)),
        "protein_to_text": _metrics(_ranks(protein_ND, text_ND, text_hash_N)),
    }


def chance(num_pairs: int) -> dict[str, float]:
    """recall@k of a random order of distinct candidates."""
    return {f"recall@{k}": min(1.0, k / num_pairs) for k in CUTOFFS}


def validation_metrics(
    protein_ND: Tensor, text_ND: Tensor, identity_N2: Tensor, logit_scale: Tensor, *, batch_size: int
) -> dict[str, Any]:
    """The global contrast (``gc``) over batches of the given size, in order, and the retrieval over all pairs.

    Args:
        identity_N2: hashes of sequence and biotext.
        batch_size: candidates of the contrast, as in training, so that the two losses compare; a remainder is left
            out of the loss unless it is all there is.
    """
    starts = range(0, max(1, len(protein_ND) // batch_size) * batch_size, batch_size)
    losses = [
        global_contrast(
            protein_ND[i : i + batch_size],
            text_ND[i : i + batch_size],
            logit_scale,
            identity_N2[i : i + batch_size],
            group=None,
        ).item()
        for i in starts
    ]
    return {
        "gc": float(np.mean(losses)),
        "num_pairs": len(protein_ND),
        **retrieval_metrics(protein_ND, text_ND, identity_N2[:, 1]),
    }


def _ranks(query_ND: Tensor, candidate_ND: Tensor, hash_N: Tensor) -> Tensor:
    ranks = []
    for start in range(0, len(query_ND), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        scores_QN = query_ND[rows] @ candidate_ND.T
        right_QN = hash_N[rows, None] == hash_N[None]
        best_Q1 = scores_QN.masked_fill(~right_QN, -torch.inf).amax(1, keepdim=True)
        ranks.append(1 + ((scores_QN >= best_Q1) & ~right_QN).sum(1))
    return torch.cat(ranks)


def _metrics(ranks_N: Tensor) -> dict[str, float]:
    ranks = ranks_N.double()
    recalls = {f"recall@{k}": (ranks <= k).double().mean().item() for k in CUTOFFS}
    return {**recalls, "median_rank": ranks.median().item(), "mrr": ranks.reciprocal().mean().item()}
