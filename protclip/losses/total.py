"""The sum of the objectives, and the counts that their means run over.

    L = L_GC + λ1 · L_BSR + λ_PDA · L_PDA + λ2 · L_MLM      (the paper: λ1 = 0.7, λ_PDA = 1, λ2 = 0.3)

Source: Zhou et al. 2025 (arXiv:2412.20014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from protclip import distributed
from protclip.config import ObjectivesConfig
from protclip.data.collate import Batch, TermCounts
from protclip.losses.global_contrast import global_contrast
from protclip.losses.masked_residues import masked_residues
from protclip.losses.segment_alignment import segment_alignment, segment_alignment_between_proteins
from protclip.losses.segment_reconstruction import segment_reconstruction
from protclip.model.dual_encoder import Alignment, Outputs

Number = TypeVar("Number", Tensor, float)


def objective_terms(
    outputs: Sequence[Outputs], batches: Sequence[Batch], objectives: ObjectivesConfig, *, group: ProcessGroup | None
) -> dict[str, Tensor]:
    """Each term that is on, over the micro-batches of one step.

    Args:
        outputs: of the network, one for each micro-batch.
        batches: the micro-batches; every worker brings the same number of pairs in all.
        objectives: which terms are on.
        group: the workers, or None for one process.

    Returns:
        gc, bsr, pda, mlm, as far as they are on, without their weights. The mean of each over the workers is its
        mean over the global batch, however that is cut into workers and micro-batches.
    """
    gc = contrast(outputs, batches, objectives, group=group)
    if not weights(objectives):
        return {"gc": gc}
    counts = mean_counts(batches, group=group)
    return {"gc": gc, **counted_terms(outputs, batches, objectives, counts=counts, group=group)}


def contrast(
    outputs: Sequence[Outputs], batches: Sequence[Batch], objectives: ObjectivesConfig, *, group: ProcessGroup | None
) -> Tensor:
    """gc over these micro-batches of all workers."""
    return global_contrast(
        torch.cat([output.protein_BD for output in outputs]),
        torch.cat([output.text_BD for output in outputs]),
        outputs[0].logit_scale,
        torch.cat([batch.identity_BI for batch in batches]),
        prefixes=objectives.gc_prefixes,
        group=group,
    )


def mean_counts(batches: Sequence[Batch], *, group: ProcessGroup | None) -> TermCounts[Tensor]:
    """What the means of BSR, PDA and MLM run over: the counts of the global batch, divided by the number of workers.

    DDP averages gradients: mean over W workers of (sum_w / (N / W)) = sum over workers of sum_w / N.
    A count of zero is given as one, since the sum over nothing is zero.
    """
    counts_3 = torch.tensor([batch.counts for batch in batches], dtype=torch.float64).sum(0)
    on_device_3 = counts_3.to(batches[0].identity_BI.device, non_blocking=True)  # a GPU goes on with its work
    mean_3 = distributed.mean_over_workers(on_device_3, group)
    return TermCounts(*torch.where(mean_3 > 0, mean_3, 1.0).unbind())


def counted_terms(
    outputs: Sequence[Outputs],
    batches: Sequence[Batch],
    objectives: ObjectivesConfig,
    *,
    counts: TermCounts[Tensor],
    group: ProcessGroup | None,
) -> dict[str, Tensor]:
    """bsr, pda and mlm over these micro-batches, those of which the outputs have something.

    Args:
        outputs: of the network, one for each micro-batch.
        batches: what it was given.
        objectives: which terms are on.
        counts: of ``mean_counts``.
        group: the workers that PDA contrasts proteins of, or None for one process.
    """
    terms: dict[str, list[Tensor]] = {name: [] for name in weights(objectives)}
    alignments: list[Alignment] = []
    for output, batch in zip(outputs, batches, strict=True):
        if output.bsr_logits_BQV is not None:
            assert batch.bsr is not None
            loss = segment_reconstruction(output.bsr_logits_BQV, batch.bsr.target_BQ, mean_count=counts.bsr)
            terms["bsr"].append(loss)
        if output.mlm_logits_BQV is not None:
            assert batch.mlm is not None
            terms["mlm"].append(masked_residues(output.mlm_logits_BQV, batch.mlm.target_BQ, mean_count=counts.mlm))
        if output.alignment is not None:
            alignments.append(output.alignment)
    if alignments and objectives.pda_negatives == "properties":
        terms["pda"] = [
            segment_alignment(
                alignment,
                threshold=objectives.threshold,
                window=objectives.segment_window,
                mean_count=counts.pda,
            )
            for alignment in alignments
        ]
    elif alignments:
        loss = segment_alignment_between_proteins(
            alignments,
            torch.cat([batch.identity_BI[:, 0] for batch in batches]),
            threshold=objectives.threshold,
            window=objectives.segment_window,
            mean_count=counts.pda,
            group=group,
        )
        terms["pda"] = [loss]
    return {name: torch.stack(parts).sum() for name, parts in terms.items() if parts}


def weights(objectives: ObjectivesConfig) -> dict[str, float]:
    """The weights of the terms that are on beside gc, in the order of the sum."""
    all_weights = {"bsr": objectives.bsr, "pda": objectives.pda, "mlm": objectives.mlm}
    return {name: weight for name, weight in all_weights.items() if weight > 0}


def total_loss(terms: Mapping[str, Number], objectives: ObjectivesConfig) -> Number:
    """L, of the terms that are given: the only place where they are summed."""
    total = terms["gc"]
    for name, weight in weights(objectives).items():
        if name in terms:
            total = total + weight * terms[name]
    return total


def with_loss(terms: Mapping[str, float], objectives: ObjectivesConfig) -> dict[str, float]:
    """The terms, and L before them as ``loss``."""
    return {"loss": total_loss(terms, objectives), **terms}
