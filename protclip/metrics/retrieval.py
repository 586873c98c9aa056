"""Retrieval between proteins and texts of a held-out set.

Shapes: N pairs, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from protclip.errors import DataError
from protclip.losses.global_contrast import global_contrast
from protclip.metrics.ranking import places_of_chance, recall
from protclip.model.quality import AMONG_FIRST, MAX_PAIRS

CUTOFFS = (1, 5, 10)
MAX_CHANCE = 0.5
"""Share of queries for which a random order has a right answer first, from which on retrieval measures nothing."""
_ROWS_PER_BLOCK = 1024


def retrieval_metrics(protein_ND: Tensor, text_ND: Tensor, text_hash_N: Tensor) -> dict[str, dict[str, float]]:
    """recall@1/5/10, median rank and mean reciprocal rank, text → protein and protein → text.

    A candidate counts as right if its biotext equals that of the query's pair. The rank of the best right candidate
    is 1 + the number of wrong candidates that score at least as high, so that a collapsed model gains nothing from
    ties. A score that is not a number is below all others.
    """
    return {
        "text_to_protein": _metrics(_ranks(text_ND, protein_ND, text_hash_N)),
        "protein_to_text": _metrics(_ranks(protein_ND, text_ND, text_hash_N)),
    }


def chance(text_hash_N: Tensor) -> dict[str, float]:
    """recall@k of a random order, with the same right answers as ``retrieval_metrics``, in both directions."""
    places_N3 = places_of_chance(_num_equal(text_hash_N).numpy(), len(text_hash_N))
    return {f"recall@{k}": float(recall(places_N3, k).mean()) for k in CUTOFFS}


def check_variety(identity_N2: Tensor, where: str) -> None:
    """Refuse pairs on which retrieval measures nothing: most of them share their text, or their protein.

    Args:
        identity_N2: hashes of sequence and biotext.
        where: what they are, for the message.

    Raises:
        DataError: if a random order puts a right answer first for the share MAX_CHANCE of them.
    """
    for what, hash_N in (("protein", identity_N2[:, 0]), ("text", identity_N2[:, 1])):
        if (share := chance(hash_N)["recall@1"]) >= MAX_CHANCE:
            distinct = _num_distinct(hash_N)
            raise DataError(
                f"{where}: {distinct:,} distinct {what}{'s' if distinct > 1 else ''} of {len(hash_N):,} pairs are too "
                f"uniform to measure anything on: a random order puts a right answer first for {share:.0%} of them "
                f"(less than {MAX_CHANCE:.0%} make sense); curate more varied entries, or more of them."
            )


def validation_metrics(
    protein_ND: Tensor,
    text_ND: Tensor,
    identity_N2: Tensor,
    logit_scale: Tensor,
    *,
    batch_size: int,
    prefixes: Sequence[int] = (),
) -> dict[str, Any]:
    """The global contrast (``gc``) over batches of the given size, in order, and the retrieval over all pairs.

    Beside the recall stand what it is of, pairs, distinct proteins and distinct texts, and ``chance``. Where there are
    more than MAX_PAIRS, ``among_1000`` is the retrieval among the first of them, by which models compare.

    Args:
        identity_N2: hashes of sequence and biotext.
        batch_size: candidates of the contrast, as in training, so that the two losses compare; a remainder is left
            out of the loss unless it is all there is.
        prefixes: of the contrast, likewise; the retrieval is that of whole embeddings.
    """
    starts = range(0, max(1, len(protein_ND) // batch_size) * batch_size, batch_size)
    losses = [
        global_contrast(
            protein_ND[i : i + batch_size],
            text_ND[i : i + batch_size],
            logit_scale,
            identity_N2[i : i + batch_size],
            prefixes=prefixes,
            group=None,
        ).item()
        for i in starts
    ]
    metrics = {"gc": float(np.mean(losses)), **_retrieval(protein_ND, text_ND, identity_N2)}
    if len(protein_ND) > MAX_PAIRS:
        metrics[AMONG_FIRST] = _retrieval(protein_ND[:MAX_PAIRS], text_ND[:MAX_PAIRS], identity_N2[:MAX_PAIRS])
    return metrics


def _retrieval(protein_ND: Tensor, text_ND: Tensor, identity_N2: Tensor) -> dict[str, Any]:
    return {
        "num_pairs": len(protein_ND),
        "num_proteins": _num_distinct(identity_N2[:, 0]),
        "num_texts": _num_distinct(identity_N2[:, 1]),
        "chance": chance(identity_N2[:, 1]),
        **retrieval_metrics(protein_ND, text_ND, identity_N2[:, 1]),
    }


def _num_distinct(hash_N: Tensor) -> int:
    return len(np.unique(hash_N.cpu().numpy()))


def _num_equal(hash_N: Tensor) -> Tensor:
    """How many have the hash of each, itself among them."""
    _, place_N, count = np.unique(hash_N.cpu().numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy(count[place_N])


def _ranks(query_ND: Tensor, candidate_ND: Tensor, hash_N: Tensor) -> Tensor:
    ranks = []
    for start in range(0, len(query_ND), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        scores_QN = (query_ND[rows] @ candidate_ND.T).nan_to_num(nan=-torch.inf)
        right_QN = hash_N[rows, None] == hash_N[None]
        best_Q1 = scores_QN.masked_fill(~right_QN, -torch.inf).amax(1, keepdim=True)
        ranks.append(1 + ((scores_QN >= best_Q1) & ~right_QN).sum(1))
    return torch.cat(ranks)


def _metrics(ranks_N: Tensor) -> dict[str, float]:
    ranks = ranks_N.double()
    recalls = {f"recall@{k}": (ranks <= k).double().mean().item() for k in CUTOFFS}
    return {**recalls, "median_rank": ranks.median().item(), "mrr": ranks.reciprocal().mean().item()}
