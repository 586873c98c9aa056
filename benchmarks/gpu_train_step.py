"""How fast a training step of the paper's size is on one CUDA device, against the padded one. A few minutes.

    python benchmarks/gpu_train_step.py            8, 16 and 32 pairs a step
    python benchmarks/gpu_train_step.py --quick    8 pairs, three steps
    python benchmarks/gpu_train_step.py --cpu      a tiny shape on this processor, to see that it runs

ESM-2 650M's and PubMedBERT's shapes with random weights, the text tower frozen, all objectives, bf16 autocast, AdamW:
the step that pretraining takes, from a batch on the device. It needs torch, transformers, numpy and pyarrow beside this
package.

    packed    no padding; variable-length attention
    padded    HuggingFace's modules on padded batches with SDPA, all else the same
    NCCL      packed, as one of several workers takes it: DDP and the exchanges of a step, with one rank

Tokens are those of the proteins without padding, each of the three copies that pass the encoder counted (clean, and
masked for MLM and for BSR). MFU is the encoders' FLOPs for these tokens and the texts' over the device's bf16 peak
(Chowdhery et al. 2022, arXiv:2204.02311, appendix B: backward is twice forward, nothing recomputed counts); heads count
as nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from report import Claim, write_results
from torch._C._distributed_c10d import HashStore
from torch.distributed import ProcessGroup
from train_step import LARGE_TEXT, MASK_ID, MAX_RESIDUES, NUM_PAIRS, OBJECTIVES, TEXT_SHAPES, tokenised_pairs

from protclip import layout
from protclip.config import OptimizerConfig
from protclip.data.collate import Batch, Masking, collate
from protclip.model.build import ESM2_FIELDS, NO_DROPOUT
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.encoders import encoder_config
from protclip.pretraining.learner import DualEncoderLearner, part_of
from protclip.train.optim import build_optimizer
from protclip.train.state import TrainState
from protclip.train.step import Wishes, train_step

ESM2_650M = {"hidden_size": 1280, "num_hidden_layers": 33, "num_attention_heads": 20, "intermediate_size": 5120}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
PUBMEDBERT = TEXT_SHAPES[LARGE_TEXT]
STEPS, QUICK_STEPS = 10, 3
BATCHES = 4
"""The most pairs of a step, in batches of NUM_PAIRS."""

PEAK_TFLOPS = (("H100 PCIe", 756), ("H100 NVL", 835), ("H100", 989), ("H200", 989), ("A100", 312))
"""bf16, dense, by the first that the device's name holds (NVIDIA's data sheets)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """Steps of one kind."""

    pairs: int
    tokens: int
    """Of the proteins in one step, without padding, all copies."""
    step_s: float
    """Median."""
    flops: float
    """Of the encoders in one step."""
    peak_gb: float
    """Of memory that tensors had at once; 0 on a CPU."""


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pairs, three steps")
    parser.add_argument("--cpu", action="store_true", help="a tiny shape on this processor")
    arguments = parser.parse_args()
    if arguments.cpu:
        text, device = {**TINY, "vocab_size": 200}, torch.device("cpu")
        measured(TINY, text, "packed", 1, steps=1, device=device)
        measured(TINY, text, "padded", 1, steps=1, device=device)
        measured(TINY, text, "packed", 1, steps=1, device=device, group=group_of_one("gloo"))
        print("gpu_train_step: the tiny shape runs packed, padded and with one rank of gloo; nothing was measured.")
        return
    quick = arguments.quick
    if not torch.cuda.is_available():
        sys.exit("gpu_train_step: torch finds no CUDA device here; nothing was measured.")
    steps = QUICK_STEPS if quick else STEPS
    cases: list[tuple[Literal["packed", "padded"], int]] = [("packed", 1), ("padded", 1)]
    cases += [] if quick else [("packed", 2), ("padded", 2), ("packed", BATCHES), ("padded", BATCHES)]
    device = torch.device("cuda", 0)
    measures = {case: measured(ESM2_650M, PUBMEDBERT, *case, steps=steps, device=device) for case in cases}

    with_nccl = measured(
        ESM2_650M, PUBMEDBERT, "packed", cases[-1][1], steps=steps, device=device, group=group_of_one("nccl")
    )

    peak = peak_flops(torch.cuda.get_device_name(device))
    fastest = max(
        (m for (attention, _), m in measures.items() if attention == "packed" and m is not None),
        key=lambda m: m.tokens / m.step_s,
    )
    claims = [
        Claim(claim="train_650m_tokens_per_s", value=fastest.tokens / fastest.step_s, target=97e3, unit="tokens/s")
    ]
    if peak is not None:
        mfu = fastest.flops / fastest.step_s / peak
        claims.append(Claim(claim="train_650m_mfu", value=mfu, target=0.4, unit="of bf16 peak"))
    ratios = [
        padded.step_s / packed.step_s
        for n in (1, 2, BATCHES)
        if (packed := measures.get(("packed", n))) and (padded := measures.get(("padded", n)))
    ]
    if ratios:
        claims.append(Claim(claim="train_650m_vs_padded", value=max(ratios), target=2.5, unit="x"))
    alone = measures["packed", cases[-1][1]]
    if with_nccl is not None and alone is not None:
        claims.append(Claim(claim="train_650m_nccl_one_rank", value=with_nccl.step_s / alone.step_s, unit="x"))
    lines = [
        f"ESM-2 650M's shape, text tower {LARGE_TEXT}, all objectives, bf16 autocast; median of {steps} steps.",
        "",
        "| attention | pairs | s a step | tokens/s | pairs/s | TFLOP/s | MFU | peak memory, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [*((*case, m) for case, m in measures.items()), ("packed, NCCL", cases[-1][1], with_nccl)]
    for attention, n, m in rows:
        if m is None:
            lines.append(f"| {attention} | {n * NUM_PAIRS} | out of memory | | | | | |")
            continue
        rate = m.flops / m.step_s
        share = "–" if peak is None else f"{rate / peak:.3f}"
        numbers = f"{m.step_s:.3f} | {m.tokens / m.step_s:,.0f} | {m.pairs / m.step_s:.1f} | {rate / 1e12:.0f}"
        lines.append(f"| {attention} | {m.pairs} | {numbers} | {share} | {m.peak_gb:.1f} |")
    figures = {
        f"{attention}, {n * NUM_PAIRS} pairs": None if m is None else {name: getattr(m, name) for name in m.__slots__}
        for attention, n, m in rows
    }
    write_results("gpu_train_step", claims, {"peak_flops": peak, "measures": figures}, "\n".join(lines), quick=quick)


def measured(
    protein: dict[str, int],
    text: dict[str, int],
    attention: Literal["packed", "padded"],
    num_batches: int,
    *,
    steps: int,
    device: torch.device,
    group: ProcessGroup | None = None,
) -> Measure | None:
    """Steps on a batch of so many times NUM_PAIRS pairs; None where the memory is too small."""
    fields = {**protein, **ESM2_FIELDS}
    architecture = Architecture(
        protein=encoder_config("protein", fields),
        text=encoder_config("text", {**text, **NO_DROPOUT}),
        projection_dim=512,
        max_protein_tokens=MAX_RESIDUES + 2,
        max_text_tokens=512,
        objectives=OBJECTIVES,
        attention=attention,
    )
    try:
        return _measured(architecture, num_batches, steps=steps, device=device, group=group)
    except torch.OutOfMemoryError:
        return None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(
    architecture: Architecture, num_batches: int, *, steps: int, device: torch.device, group: ProcessGroup | None
) -> Measure:
    torch.manual_seed(0)
    with device:
        model = DualEncoder(architecture, freeze_text=True, precision="bfloat16").train()
    network = layout.replicate(model, group)
    state = TrainState(model=model, optimizer=build_optimizer(model, OptimizerConfig()), schedule=lambda _: 1e-5)
    batch = make_batch(architecture, num_batches)
    flops = step_flops(architecture, batch)
    part = part_of([batch.to(device)], [], model)
    learner = DualEncoderLearner(model, network, group)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(2 + steps):  # the first two are the warm-up
        before = time.monotonic()
        # It ends with the step's numbers on the host: the device is done with all but the update.
        report = train_step(state, learner, part, group=group, max_grad_norm=1.0, wishes=Wishes())
        assert not report.skipped
        seconds.append(time.monotonic() - before)
    return Measure(
        pairs=batch.num_pairs,
        tokens=3 * int(batch.protein_mask_BL.sum()),
        step_s=float(np.median(seconds[2:])),
        flops=flops,
        peak_gb=torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0,
    )


def group_of_one(backend: str) -> ProcessGroup | None:
    """This process as the only worker."""
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    return dist.group.WORLD


def make_batch(architecture: Architecture, num_batches: int) -> Batch:
    """The pairs of the CPU benchmark, so many times; their hashes differ."""
    rows = pa.concat_tables([tokenised_pairs(architecture.text.vocab_size)] * num_batches)
    for name in ("accession_hash", "sequence_hash", "text_hash"):
        numbers = pa.array(np.arange(len(rows)), pa.uint64())
        rows = rows.set_column(rows.schema.get_field_index(name), name, numbers)
    masking = Masking(objectives=OBJECTIVES, seed=0, epoch=0, mask_id=MASK_ID)
    return collate(rows, protein_pad_id=1, text_pad_id=0, masking=masking)


def step_flops(architecture: Architecture, batch: Batch) -> float:
    """Of the encoders: three protein copies forward and backward, the frozen texts forward alone."""
    assert batch.properties is not None
    lengths = [mask.sum(1).numpy() for mask in (batch.protein_mask_BL, batch.text_mask_BL, batch.properties.mask_PL)]
    protein, biotext, properties = (
        forward_flops(config, length_S)
        for config, length_S in zip((architecture.protein, *[architecture.text] * 2), lengths, strict=True)
    )
    return 3 * 3 * protein + biotext + properties


def forward_flops(config: Any, length_S: np.ndarray) -> float:
    """Of an encoder over sequences of these lengths: two for each weight of a layer and token, and the attention's."""
    width, inner = config.hidden_size, config.intermediate_size
    linear = 2 * (4 * width**2 + 2 * width * inner) * float(length_S.sum())
    attention = 4 * width * float((length_S.astype(np.float64) ** 2).sum())
    total: float = config.num_hidden_layers * (linear + attention)
    return total


def peak_flops(device_name: str) -> float | None:
    """FLOP/s in bf16; None for a device that is not in the table."""
    return next((tflops * 1e12 for name, tflops in PEAK_TFLOPS if name in device_name), None)


if __name__ == "__main__":
    main()
