"""The step of pretraining: all objectives over the global batch, in one or several micro-batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from protclip import layout
from protclip.data.collate import Batch
from protclip.losses.total import contrast, counted_terms, mean_counts, total_loss
from protclip.model.dual_encoder import MAX_LOGIT_SCALE, Alignment, DualEncoder, Outputs
from protclip.train.learner import Learner
from protclip.train.step import Part


def part_of(batches: Sequence[Batch], accessions: Sequence[str], model: DualEncoder) -> Part[Batch]:
    """Micro-batches on the CPU as a part of a global batch; ``model`` is what will run over them."""
    masks = [mask for batch in batches for mask in (batch.protein_mask_BL, batch.text_mask_BL)]
    num_tokens = sum(int(mask.sum()) for mask in masks)
    num_places = sum(mask.numel() for mask in masks) if model.architecture.attention == "padded" else num_tokens
    return Part(batches=batches, accessions=accessions, num_tokens=num_tokens, num_places=num_places)


class DualEncoderLearner(Learner[Batch]):
    """GC, BSR, PDA and MLM, as far as they are on."""

    def __init__(self, model: DualEncoder, network: nn.Module, group: ProcessGroup | None) -> None:
        """``network`` is the model, replicated or sharded over the workers of the group; None for one process."""
        self.model, self.network, self.group = model, network, group

    def backward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """See Learner."""
        objectives = self.model.architecture.objectives
        counts = mean_counts(batches, group=self.group)

        def own_terms(outputs: Sequence[Outputs], batches: Sequence[Batch]) -> dict[str, Tensor]:
            return counted_terms(outputs, batches, objectives, counts=counts, group=self.group)

        if len(batches) == 1:
            outputs = [_forward(self.network, batches[0])]
            terms = {"gc": contrast(outputs, batches, objectives, group=self.group), **own_terms(outputs, batches)}
            total_loss(terms, objectives).backward()  # type: ignore[no-untyped-call]
            return {name: term.detach() for name, term in terms.items()}

        # Gradient caching (Gao et al. 2021, arXiv:2101.06983): what rows of several parts have to do with each other
        # is computed from outputs without a graph; its gradient with respect to them then goes through each part's own
        # graph.
        between = objectives.pda > 0 and objectives.pda_negatives == "proteins"
        # Dropout, where an encoder has it, draws the same masks in both passes.
        drawn: list[_RandomState] = []
        joint: list[Outputs] = []
        for batch in batches:
            drawn.append(_RandomState.of(batch.protein_ids_BL.device))
            with torch.no_grad():
                joint.append(_leaves(_joint(_forward(self.model, batch), between=between)))
        terms = {"gc": contrast(joint, batches, objectives, group=self.group), **own_terms(joint, batches)}
        total_loss(terms, objectives).backward()  # type: ignore[no-untyped-call]
        for i, (batch, leaves) in enumerate(zip(batches, joint, strict=True)):
            last = i == len(batches) - 1
            with contextlib.nullcontext() if last else layout.without_averaging(self.network):
                with drawn[i].again():
                    outputs_i = _forward(self.network, batch)
                loss = outputs_i.protein_BD.new_zeros(())
                for output, leaf in zip(_tensors(_joint(outputs_i, between=between)), _tensors(leaves), strict=True):
                    if output.requires_grad:
                        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                        loss = loss + (output * gradient).sum()
                own = own_terms([outputs_i._replace(alignment=None) if between else outputs_i], [batch])
                loss = loss + total_loss({"gc": torch.zeros_like(loss), **own}, objectives)
                loss.backward()  # type: ignore[no-untyped-call]
            for name, term in own.items():
                terms[name] = terms.get(name, 0.0) + term.detach()
        return {name: terms[name].detach() for name in ("gc", "bsr", "pda", "mlm") if name in terms}

    def loss(self, terms: Mapping[str, float]) -> float:
        """See Learner."""
        return total_loss(terms, self.model.architecture.objectives)

    @torch.no_grad()
    def bad_rows(self, batches: Sequence[Batch]) -> list[int]:
        """See Learner."""
        found: list[int] = []
        first = 0
        for batch in batches:
            outputs = self.model(batch)
            rows = [outputs.protein_BD, outputs.text_BD, outputs.mlm_logits_BQV, outputs.bsr_logits_BQV]
            bad = [~row.isfinite().flatten(1).all(1) for row in rows if row is not None]
            found += (first + torch.stack(bad).any(0).nonzero().flatten()).tolist()
            first += batch.num_pairs
        return found

    @torch.no_grad()
    def bound_weights(self) -> None:
        """See Learner."""
        self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if self.model.architecture.objectives.pda > 0:
            self.model.heads.segment_logit_scale.clamp_(max=MAX_LOGIT_SCALE)


@dataclass(frozen=True, slots=True)
class _RandomState:
    """Of torch on the CPU, and on the GPU where it computes."""

    device: torch.device
    cpu: Tensor
    gpu: Tensor | None

    @classmethod
    def of(cls, device: torch.device) -> _RandomState:
        """As it is now."""
        gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), gpu)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """As it was then; afterwards it is again what it was before."""
        with torch.random.fork_rng(devices=[] if self.gpu is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.gpu is not None:
                torch.cuda.set_rng_state(self.gpu, self.device)
            yield


def _forward(network: nn.Module, batch: Batch) -> Outputs:
    outputs: Outputs = network(batch)
    return outputs


def _joint(outputs: Outputs, *, between: bool) -> Outputs:
    """What the terms that look at several rows at once need."""
    alignment = outputs.alignment if between else None
    return outputs._replace(mlm_logits_BQV=None, bsr_logits_BQV=None, alignment=alignment)


def _leaves(outputs: Outputs) -> Outputs:
    """The same, to be derived by."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.is_floating_point())

    alignment = outputs.alignment
    return Outputs(
        protein_BD=leaf(outputs.protein_BD),
        text_BD=leaf(outputs.text_BD),
        logit_scale=leaf(outputs.logit_scale),
        alignment=None if alignment is None else Alignment(*map(leaf, alignment)),
    )


def _tensors(outputs: Outputs) -> list[Tensor]:
    tensors = [outputs.protein_BD, outputs.text_BD, outputs.logit_scale]
    return [*tensors, *(outputs.alignment or ())]
