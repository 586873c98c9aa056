"""How a model lies on its workers: whole on each, or divided over them.

A model is *replicated* by DDP, or *sharded* by FSDP2 (Zhao et al. 2023, arXiv:2304.11277): weights, gradients and
optimizer states divided over the workers, the weights of a block gathered where they are needed. Both make the same
step. FSDP2 takes a second to import and is so only where processes work together: a single one, such as a search,
starts without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel

from protclip import distributed

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs


def replicate(model: nn.Module, group: ProcessGroup | None) -> nn.Module:
    """The model as DDP runs it: whole on every worker."""
    if group is None:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        process_group=group,
        # There are none; it keeps the buckets as they are. Otherwise they are sorted anew after a process's first step,
        # and sums of three workers or more in another order would tell a restarted run from an undisturbed one. A sum
        # of two has one order, and needs no walk over the graph in each step.
        find_unused_parameters=distributed.world_size(group) > 2,
    )


def shard(
    model: nn.Module, blocks: Iterable[nn.Module], group: ProcessGroup | None, *, methods: Sequence[str]
) -> nn.Module:
    """Divide a model over the workers by FSDP2, in place; its parameters are other objects from then on.

    Args:
        model: the same on every worker.
        blocks: parts of it that are gathered one after the other; what is in none of them is gathered for the whole
            pass.
        group: the workers.
        methods: of the model, which compute with its weights beside ``forward``.
    """
    if group is None:
        return model
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = DeviceMesh.from_group(group, next(model.parameters()).device.type)
    whole = {parameter for parameter in model.parameters() if parameter.ndim == 0}  # FSDP2 divides no single numbers
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=whole)
    for method in methods:
        register_fsdp_forward_method(model, method)
    return model


@contextlib.contextmanager
def whole_weights(network: nn.Module) -> Iterator[None]:
    """Within it each worker holds all weights, so that it can compute without the others; for evaluation.

    A sharded model gathers its weights in each pass, which all workers have to make together, and equally often.
    """
    modules = [module for module in network.modules() if _is_sharded(module)]
    for module in modules:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    yield
    for module in modules:
        module.set_reshard_after_forward(module is not network, recurse=False)
        module.reshard()


def run_block(block: nn.Module, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """``function(inputs)``, which computes with a block's weights in place of its ``forward``."""
    if not _is_sharded(block):
        return function(inputs)
    block.forward = function
    try:
        outputs: Tensor = nn.Module.__call__(block, inputs)  # the hooks that gather and release
    finally:
        del block.forward
    return outputs


@contextlib.contextmanager
def without_averaging(network: nn.Module) -> Iterator[None]:
    """Within it, backward adds to this worker's gradients alone; the next backward outside of it averages all."""
    if _is_sharded(network):
        network.set_requires_gradient_sync(False)
        yield
        network.set_requires_gradient_sync(True)
    elif isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
    else:
        yield


def clip_gradients(network: nn.Module, max_norm: float, group: ProcessGroup | None) -> Tensor:
    """Scale the averaged gradient down to a norm; returns the norm that it had, of all parameters together."""
    parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
    if not _is_sharded(network):
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    sharded = [parameter for parameter in parameters if _is_divided(parameter)]
    whole = [parameter for parameter in parameters if not _is_divided(parameter)]
    for parameter in whole:  # FSDP2 leaves them alone
        assert parameter.grad is not None
        parameter.grad = distributed.mean_over_workers(parameter.grad, group)
    norm = torch.hypot(_grad_norm(sharded), _grad_norm(whole))
    for some in (sharded, whole):
        nn.utils.clip_grads_with_norm_(some, max_norm, norm)
    return norm


def gathered(tensor: Tensor) -> Tensor:
    """A tensor whole, which may lie on the workers in parts; all of them have to call."""
    return tensor.full_tensor() if _is_divided(tensor) else tensor


def laid_out_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A tensor that every worker has whole, divided over them where ``model`` is."""
    if not _is_divided(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        tensor.to(model.device, model.dtype), model.device_mesh, model.placements, src_data_rank=None
    )


def _is_sharded(module: nn.Module) -> TypeGuard[Any]:
    """Whether FSDP2 divided it, so that it is an ``FSDPModule`` as well."""
    if not dist.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def _is_divided(tensor: Tensor) -> TypeIs[DTensor]:
    """Whether a part of it is here, and the others on other workers."""
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _grad_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    return gathered(nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None]))
