"""PDA: property-grouped dynamic segment alignment.

    S_kj = q_k · mean z_i, |i − j| ≤ w/2                    property k, residue j of one protein; window w = 1
    Ŝ_kj = (S_kj − min_j S_kj) / (max_j S_kj − min_j S_kj)
    W_kj ∝ Ŝ_kj where Ŝ_kj ≥ γ, else 0;   Σ_j W_kj = 1
    d_k = Σ_j W_kj · z_j                                    the dynamic segment
    L_PDA = ½ · [CE(e^l · D·Qᵀ, diag) + CE(e^l · Q·Dᵀ, diag)],  rows of D and Q of unit length

In the paper the contrast is between the properties of one protein (``segment_alignment``); beside it stands a contrast
of each property between proteins (``segment_alignment_between_proteins``). Source: Zhou et al. 2025 (arXiv:2412.20014);
the second in the manner of late interaction (Yao et al. 2021, arXiv:2111.07783).
Shapes: B pairs of this worker, N pairs of all workers, L tokens, K properties of a pair (absent ones among them),
Q = N · K texts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.functional import normalize

from protclip import distributed
from protclip.model.dual_encoder import Alignment, scale
from protclip.model.dynamic_segments import segment_weights

_EPSILON = 1e-6
"""Shorter vectors are not scaled up."""


def segment_alignment(alignment: Alignment, *, threshold: float, window: int, mean_count: Tensor) -> Tensor:
    """The contrast between the properties of each protein and their dynamic segments.

    Absent properties take no part. A protein with fewer than two has nothing to contrast and is left out.

    Args:
        alignment: projected residues and properties, fp32 at least.
        threshold: γ.
        window: residues, an odd number; 1 in the paper.
        mean_count: proteins with two properties or more in the global batch, all micro-batches, divided by the number
            of workers.

    Returns:
        This worker's sum over proteins (of the mean over their properties, of the two directions) divided by
        ``mean_count``. DDP's average over workers makes it the mean over the proteins of the global batch that count,
        and micro-batches add up to the same.
    """
    query_BKD, residue_BLD, present_BK = alignment.property_BKD, alignment.residue_BLD, alignment.present_BK
    weight_BKL = segment_weights(query_BKD, residue_BLD, alignment.residue_mask_BL, threshold=threshold, window=window)
    segment_BKD = normalize(weight_BKL @ residue_BLD, dim=-1, eps=_EPSILON)
    logits_BKK = scale(alignment.logit_scale) * segment_BKD @ normalize(query_BKD, dim=-1, eps=_EPSILON).mT
    # An absent property is no candidate; it stays its own, so that its row, which does not count, is finite.
    own_KK = torch.eye(present_BK.shape[1], dtype=torch.bool, device=present_BK.device)
    pairs_BKK = present_BK[:, :, None] & present_BK[:, None, :]
    logits_BKK = logits_BKK.masked_fill(~pairs_BKK & ~own_KK, -torch.inf)
    diagonal_BK = logits_BKK.diagonal(dim1=1, dim2=2)
    contrast_BK = 0.5 * (logits_BKK.logsumexp(2) + logits_BKK.logsumexp(1)) - diagonal_BK
    num_present_B = present_BK.sum(1)
    counts_BK = present_BK & (num_present_B[:, None] >= 2)
    mean_B = contrast_BK.masked_fill(~counts_BK, 0.0).sum(1) / num_present_B.clamp(min=1)
    return mean_B.sum() / mean_count.to(mean_B.dtype)


def segment_alignment_between_proteins(
    alignments: Sequence[Alignment],
    sequence_hash_B: Tensor,
    *,
    threshold: float,
    window: int,
    mean_count: Tensor,
    group: ProcessGroup | None,
) -> Tensor:
    """The contrast of each property between the proteins of all workers.

    Each text chooses its dynamic segment in every protein: d_bnk, of protein b, by property k of pair n. Its own
    protein is told from the others by cos(d_bnk, q_nk), in both directions. Pairs without the property take no part,
    and pairs with the same text of it, or the same sequence, are no negatives of each other. It holds
    4 bytes · B · N · K · L several times over.

    Args:
        alignments: of each micro-batch; every worker brings the same number of pairs in all.
        sequence_hash_B: of the pairs of all micro-batches.
        threshold: γ.
        window: residues, an odd number.
        mean_count: pairs with a property in the global batch, all micro-batches, divided by the number of workers.
        group: the workers, or None for one process.

    Returns:
        This worker's sum over pairs (of the mean over their properties, of the two directions) divided by
        ``mean_count``, as in ``segment_alignment``.
    """
    query_BKD, present_BK, hash_BK = (
        torch.cat([getattr(part, name) for part in alignments])
        for name in ("property_BKD", "present_BK", "text_hash_BK")
    )
    all_query_NKD = distributed.gather_rows(query_BKD, group)
    all_present_NK = distributed.gather_rows(present_BK, group)
    all_hash_NK = distributed.gather_rows(hash_BK, group)
    all_sequence_N = distributed.gather_rows(sequence_hash_B, group)
    num_pairs = len(query_BKD)
    own = slice(distributed.rank(group) * num_pairs, (distributed.rank(group) + 1) * num_pairs)
    own_BN = torch.zeros(num_pairs, len(all_query_NKD), dtype=torch.bool, device=query_BKD.device)
    own_BN[:, own].fill_diagonal_(True)

    cosine_BNK = torch.cat([_segment_cosines(part, all_query_NKD, threshold, window) for part in alignments])
    negative_BNK = present_BK[:, None] & all_present_NK & (hash_BK[:, None] != all_hash_NK)
    negative_BNK &= (sequence_hash_B[:, None] != all_sequence_N)[..., None]
    # A pair without the property stays its own candidate, so that its row, which does not count, is finite.
    logits_BNK = (scale(alignments[0].logit_scale) * cosine_BNK).masked_fill(
        ~(negative_BNK | own_BN[..., None]), -torch.inf
    )
    own_logits_BK = logits_BNK[own_BN]
    over_texts_BK = logits_BNK.logsumexp(1)
    over_proteins_BK = distributed.gather_rows(logits_BNK, group)[:, own].logsumexp(0)
    contrast_BK = 0.5 * (over_texts_BK + over_proteins_BK) - own_logits_BK
    mean_B = contrast_BK.masked_fill(~present_BK, 0.0).sum(1) / present_BK.sum(1).clamp(min=1)
    return mean_B.sum() / mean_count.to(mean_B.dtype)


def _segment_cosines(alignment: Alignment, query_NKD: Tensor, threshold: float, window: int) -> Tensor:
    """cos(d_bnk, q_nk) of each protein b and each text (n, k), (B, N, K)."""
    query_1QD = query_NKD.flatten(0, 1)[None]
    weight_BQL = segment_weights(
        query_1QD, alignment.residue_BLD, alignment.residue_mask_BL, threshold=threshold, window=window
    )
    segment_BQD = normalize(weight_BQL @ alignment.residue_BLD, dim=-1, eps=_EPSILON)
    cosine_BQ = (segment_BQD * normalize(query_1QD, dim=-1, eps=_EPSILON)).sum(-1)
    return cosine_BQ.view(-1, *query_NKD.shape[:2])
