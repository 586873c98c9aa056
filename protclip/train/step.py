"""One optimizer step: forward, backward, the update, and what it leaves out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from protclip import distributed, layout
from protclip.data.collate import Batch
from protclip.losses.total import contrast, counted_terms, mean_counts, total_loss
from protclip.model.dual_encoder import MAX_LOGIT_SCALE, Alignment, DualEncoder, Outputs
from protclip.train.optim import set_learning_rate
from protclip.train.state import TrainState


class Wishes(NamedTuple):
    """What a worker wants all to do together after a step."""

    stop: bool = False
    """End the run."""
    look: bool = False
    """Look whether a node is about to be taken away."""
    save: bool = False
    """Make a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What a step did; the same on every worker."""

    terms: dict[str, float]
    """Each term of the loss, without its weight: means over the global batch."""
    grad_norm: float
    """Of all parameters together, before it was bounded."""
    skipped: bool
    """The gradient was not finite, and nothing was changed."""
    num_tokens: int
    """Of proteins and biotexts of the global batch, as they are in the data."""
    num_places: int
    """The same with the padding that the encoders run over, which is none where they are packed."""
    wishes: Wishes
    """What any worker wants."""


def train_step(
    state: TrainState,
    network: nn.Module,
    batches: Sequence[Batch],
    *,
    group: ProcessGroup | None,
    max_grad_norm: float,
    wishes: Wishes,
) -> StepReport:
    """Forward, backward and update.

    A gradient that is not finite is dropped on every worker: averaging has made it the same on all.

    Args:
        state: its optimizer is stepped.
        network: ``state.model``, replicated or sharded where there are several workers.
        batches: this worker's part of the global batch, in one or several micro-batches.
        group: the workers, or None for one process.
        max_grad_norm: a longer gradient is scaled down to it.
        wishes: this worker's.
    """
    state.optimizer.zero_grad(set_to_none=True)
    terms = _backward(state.model, network, batches, group=group)
    norm = layout.clip_gradients(network, max_grad_norm, group).double()
    masks = [mask for batch in batches for mask in (batch.protein_mask_BL, batch.text_mask_BL)]
    num_tokens = torch.stack([mask.sum() for mask in masks]).sum()
    padded = state.model.architecture.attention == "padded"
    num_places = num_tokens.new_tensor(sum(mask.numel() for mask in masks)) if padded else num_tokens
    mine = [*terms.values(), num_tokens, num_places, *norm.new_tensor(wishes)]
    # All that the host wants to know, in one exchange and one wait for the device.
    means = distributed.mean_over_workers(torch.stack([value.double() for value in mine]), group)
    *values, tokens, places, stop, look, save, grad_norm = torch.cat([means, norm.reshape(1)]).tolist()
    skipped = not math.isfinite(grad_norm)
    set_learning_rate(state.optimizer, state.schedule(state.step))
    if not skipped:
        state.optimizer.step()
        _bound_scales(state.model)
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    workers = distributed.world_size(group)
    return StepReport(
        terms=dict(zip(terms, values, strict=True)),
        grad_norm=grad_norm,
        skipped=skipped,
        num_tokens=round(tokens * workers),
        num_places=round(places * workers),
        wishes=Wishes(stop=stop > 0, look=look > 0, save=save > 0),
    )


@torch.no_grad()
def bad_rows(model: DualEncoder, batches: Sequence[Batch]) -> list[int]:
    """This worker's rows of a step whose own outputs are not finite, by their place in it."""
    found: list[int] = []
    first = 0
    for batch in batches:
        outputs = model(batch)
        rows = [outputs.protein_BD, outputs.text_BD, outputs.mlm_logits_BQV, outputs.bsr_logits_BQV]
        bad = [~row.isfinite().flatten(1).all(1) for row in rows if row is not None]
        found += (first + torch.stack(bad).any(0).nonzero().flatten()).tolist()
        first += batch.num_pairs
    return found


def _backward(
    model: DualEncoder, network: nn.Module, batches: Sequence[Batch], *, group: ProcessGroup | None
) -> dict[str, Tensor]:
    """Gradients of the global batch, averaged over the workers; returns this worker's terms, detached."""
    objectives = model.architecture.objectives
    counts = mean_counts(batches, group=group)

    def own_terms(outputs: Sequence[Outputs], batches: Sequence[Batch]) -> dict[str, Tensor]:
        return counted_terms(outputs, batches, objectives, counts=counts, group=group)

    if len(batches) == 1:
        outputs = [_forward(network, batches[0])]
        terms = {"gc": contrast(outputs, batches, group=group), **own_terms(outputs, batches)}
        total_loss(terms, objectives).backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    # Gradient caching (Gao et al. 2021, arXiv:2101.06983): what rows of several parts have to do with each other is
    # computed from outputs without a graph; its gradient with respect to them then goes through each part's own graph.
    between = objectives.pda > 0 and objectives.pda_negatives == "proteins"
    # Dropout, where an encoder has it, draws the same masks in both passes.
    drawn: list[_RandomState] = []
    joint: list[Outputs] = []
    for batch in batches:
        drawn.append(_RandomState.of(batch.protein_ids_BL.device))
        with torch.no_grad():
            joint.append(_leaves(_joint(_forward(model, batch), between=between)))
    terms = {"gc": contrast(joint, batches, group=group), **own_terms(joint, batches)}
    total_loss(terms, objectives).backward()  # type: ignore[no-untyped-call]
    for i, (batch, leaves) in enumerate(zip(batches, joint, strict=True)):
        last = i == len(batches) - 1
        with contextlib.nullcontext() if last else layout.without_averaging(network):
            with drawn[i].again():
                outputs_i = _forward(network, batch)
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


@torch.no_grad()
def _bound_scales(model: DualEncoder) -> None:
    model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    if model.architecture.objectives.pda > 0:
        model.heads.segment_logit_scale.clamp_(max=MAX_LOGIT_SCALE)
