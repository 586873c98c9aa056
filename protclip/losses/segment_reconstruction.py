"""BSR: biotext-guided static segment reconstruction.

    c_j = softmax(W_q·g_p(h_j) · (W_k·g_t(t))ᵀ / √D) · W_v·g_t(t)      (model/objective_heads.py)
    L_BSR = − mean over the residues of masked segments of log softmax(head(c_j))[residue]

h is the encoder's output of the sequence with masked segments, t that of the biotext's tokens, padding out. Without a
residual the prediction sees nothing of the protein but through what it reads in the biotext.

Source: Zhou et al. 2025 (arXiv:2412.20014).
Shapes: B pairs of this worker, Q residues in masked segments of the protein that has most, V tokens.
"""

from __future__ import annotations

from torch import Tensor

from protclip.losses.masked_residues import masked_residues


def segment_reconstruction(logits_BQV: Tensor, target_BQ: Tensor, *, mean_count: Tensor) -> Tensor:
    """Cross-entropy at the residues of masked segments; arguments and mean as in ``masked_residues``."""
    return masked_residues(logits_BQV, target_BQ, mean_count=mean_count)
