"""What a step of a tiny model on two gloo processes sends of its weights and gradients, counted call by call."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from scale_sums import layer_numbers
from torch.multiprocessing.spawn import start_processes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from train_step import MASK_ID, NUM_PAIRS, OBJECTIVES, tokenised_pairs

from protclip import layout
from protclip.data.collate import Masking, collate
from protclip.model.build import ESM2_FIELDS, NO_DROPOUT
from protclip.model.dual_encoder import ENCODING_METHODS, Architecture, DualEncoder
from protclip.model.encoders import encoder_config
from protclip.pretraining.learner import DualEncoderLearner

SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
CASES = (("ddp", 1), ("ddp", 4), ("fsdp", 1), ("fsdp", 4))


def count_all() -> dict[str, Any]:
    """Numbers of the model, and for each case those that are gathered, summed to all, and summed to their owners."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        start_processes(_worker, (address, folder), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text())
    return found


def _worker(rank: int, address: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    found: dict[str, Any] = {"cases": []}
    for strategy, micro_batches in CASES:
        size, counted = _step(strategy, micro_batches)
        found["cases"].append({"strategy": strategy, "micro_batches": micro_batches, **counted})
        found["size"] = size
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # the process group's threads would outlive it


def _step(strategy: str, micro_batches: int) -> tuple[dict[str, int], dict[str, int]]:
    architecture = Architecture(
        protein=encoder_config("protein", {**SHAPE, **ESM2_FIELDS}),
        text=encoder_config("text", {**SHAPE, "vocab_size": 100, **NO_DROPOUT}),
        projection_dim=16,
        max_protein_tokens=1024,
        max_text_tokens=512,
        objectives=OBJECTIVES,
    )
    model, group = DualEncoder(architecture, freeze_text=True).train(), dist.group.WORLD
    counts = {flag: sum(p.numel() for p in model.parameters() if p.requires_grad == flag) for flag in (True, False)}
    size = {"trained": counts[True], "frozen": counts[False], "protein": 0, "text": 0, **layer_numbers(model)}
    if strategy == "fsdp":
        network = layout.shard(model, model.blocks, group, methods=ENCODING_METHODS)
    else:
        network = layout.replicate(model, group)
    rows, per_part = tokenised_pairs(100), NUM_PAIRS // micro_batches
    masking = Masking(objectives=OBJECTIVES, seed=0, epoch=0, mask_id=MASK_ID)
    batches = [
        collate(rows.slice(start, per_part), protein_pad_id=1, text_pad_id=0, masking=masking)
        for start in range(0, NUM_PAIRS, per_part)
    ]
    learner = DualEncoderLearner(model, network, group)
    learner.backward(batches)  # the first step is another one
    with _Counting() as counting:
        learner.backward(batches)
    return size, counting.numbers


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the numbers of what each collective gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = {"gathered": 0, "summed": 0, "scattered": 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kinds = {"_allgather_base_": "gathered", "allreduce_": "summed", "_reduce_scatter_base_": "scattered"}
        namespace, _, name = str(func).partition(".")
        kind = kinds.get(name.partition(".")[0]) if namespace == "c10d" else None
        if kind is not None:
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            self.numbers[kind] += max(tensor.numel() for tensor in tensors)
        return func(*args, **(kwargs or {}))
