"""What is computed, and not measured, of docs/scale.md: bytes against seconds, and a cost.

Everything follows from the shapes of the models and from what the code sends. ASSUMED has what nobody here measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from protclip.config import ObjectivesConfig
from protclip.model.build import ESM2_FIELDS, NO_DROPOUT
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.encoders import encoder_config

ROWS = 250_000_000
"""Entries of UniProtKB, about."""
WORKERS = (8, 64, 512)
WORKER_BATCH, DIMENSION = 64, 512
WORKERS_PER_NODE = 8
LINKS_GBIT = (25, 100, 400)
SHAPES = {"8M": (6, 320, 20), "150M": (30, 640, 20), "650M": (33, 1280, 20)}
"""Layers, width, heads of ESM-2."""
PUBMEDBERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
OBJECTIVES = ObjectivesConfig()
MICRO_BATCHES = 8
"""As protclip_650m_64gpu.yaml has it."""
IDENTITY_COLUMNS = 2
ASSUMED = {
    "peak_flops": 989e12,
    "share_of_peak": 0.4,
    "protein_tokens": 343,
    "text_tokens": 150,
    "characters_of_a_row": 600,
    "bytes_of_an_entry": 2800,
    "embedding_residues_per_gpu_s": 290_000,
    "residues": 88e9,
}
"""An H100's bf16 peak and how much of it a step reaches; a pair's mean tokens; text of a row of pairs, and a flat
file's entry, as generated ones have it; embedding at 650M's shape; residues of UniProtKB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """Of a dual encoder with PubMedBERT's shape, frozen."""

    trained: int
    frozen: int
    protein: int
    """Of the protein encoder's layers: what a token is multiplied with."""
    text: int
    trained_layers: int
    """Of the layers that FSDP gathers one by one; the rest it gathers for a pass."""
    frozen_layers: int
    frozen_layer: int
    """Of one of them."""


def parameters(name: str) -> Parameters:
    """Counted on the code's own model, without memory for it."""
    layers, width, heads = SHAPES[name]
    shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    architecture = Architecture(
        protein=encoder_config("protein", {**shape, "intermediate_size": 4 * width, **ESM2_FIELDS}),
        text=encoder_config("text", {**PUBMEDBERT, "vocab_size": 30522, **NO_DROPOUT}),
        projection_dim=DIMENSION,
        max_protein_tokens=1024,
        max_text_tokens=512,
        objectives=OBJECTIVES,
    )
    with torch.device("meta"):
        model = DualEncoder(architecture, freeze_text=True)
    counts = {flag: sum(p.numel() for p in model.parameters() if p.requires_grad == flag) for flag in (True, False)}
    return Parameters(
        trained=counts[True],
        frozen=counts[False],
        protein=12 * layers * width**2,
        text=12 * 12 * 768**2,
        **layer_numbers(model),
    )


def step_seconds(size: Parameters, *, micro_batches: int) -> float:
    """Computation of a worker's step: three copies of each protein, each biotext and its properties."""
    passes = 6 if micro_batches == 1 else 8  # 2 forward, 4 backward; gradient caching encodes once more
    protein = 3 * ASSUMED["protein_tokens"] * size.protein * passes
    text = 2 * ASSUMED["text_tokens"] * size.text * (2 if micro_batches == 1 else 4)
    return WORKER_BATCH * (protein + text) / (ASSUMED["peak_flops"] * ASSUMED["share_of_peak"])


def contrast_bytes(workers: int) -> dict[str, float]:
    """What GC sends in a step, of float32 rows of both sides: by each worker, or over each node's link.

    A ring passes each byte of a result over each link once, and twice where it is a sum that all receive.
    """
    pairs, share = workers * WORKER_BATCH, (workers - 1) / workers
    rows = 2 * 4 * DIMENSION * pairs
    return {
        "gather": share * (rows + 8 * IDENTITY_COLUMNS * pairs),
        "gradients of the gathered": 2 * share * rows,
    }


def weight_bytes(size: Parameters, workers: int, strategy: str, *, micro_batches: int) -> float:
    """What a step sends of gradients, and under FSDP of weights, all in float32."""
    share = (workers - 1) / workers
    if strategy == "ddp":
        return 2 * share * 4 * size.trained
    return share * 4 * (gathered_numbers(size, micro_batches) + size.trained)


def layer_numbers(model: DualEncoder) -> dict[str, int]:
    """The fields of Parameters on layers."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for block in model.blocks:
        values = list(block.parameters())
        sizes[values[0].requires_grad].append(sum(value.numel() for value in values))
    trained, frozen = sizes[True], sizes[False]
    return {"trained_layers": sum(trained), "frozen_layers": sum(frozen), "frozen_layer": frozen[0]}


def gathered_numbers(size: Parameters, micro_batches: int) -> int:
    """Weights that FSDP gathers in a step.

    Layers come for forward, twice under gradient caching, and trained ones again for backward, which looks ahead to one
    frozen one. What is in no layer stays from a forward to its backward.
    """
    forward = micro_batches if micro_batches == 1 else 2 * micro_batches
    rest = size.trained + size.frozen - size.trained_layers - size.frozen_layers
    return forward * (size.trained_layers + size.frozen_layers) + micro_batches * (
        size.trained_layers + size.frozen_layer + rest
    )


def network() -> list[dict[str, Any]]:
    """Bytes of a step over a node's link, and the seconds of it, beside those of the computation."""
    found = []
    for name in SHAPES:
        size = parameters(name)
        for workers in WORKERS:
            for strategy, parts in (("ddp", MICRO_BATCHES), ("fsdp", 1), ("fsdp", MICRO_BATCHES)):
                contrast = contrast_bytes(workers)
                weights = weight_bytes(size, workers, strategy, micro_batches=parts)
                total = weights + sum(contrast.values())
                found.append(
                    {
                        "model": name,
                        "workers": workers,
                        "strategy": strategy,
                        "micro_batches": parts,
                        "contrast_bytes": sum(contrast.values()),
                        "weight_bytes": weights,
                        "compute_s": step_seconds(size, micro_batches=parts),
                        "network_s": {link: total * 8 / link / 1e9 for link in LINKS_GBIT},
                    }
                )
    return found


def workers_where_contrast_equals(seconds: float, link_gbit: float) -> float:
    """Workers from which GC alone takes so long."""
    return seconds * link_gbit * 1e9 / 8 / (sum(contrast_bytes(2).values()) / 2 / 0.5)


def network_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As a table."""
    yield (
        "| model | workers | strategy, parts | GC, MB | weights, GB | compute, s | "
        + " | ".join(f"{link} Gbit/s, s" for link in LINKS_GBIT)
        + " |"
    )
    yield "|---" * (6 + len(LINKS_GBIT)) + "|"
    for row in rows:
        seconds = " | ".join(f"**{s:.3f}**" if s > row["compute_s"] else f"{s:.3f}" for s in row["network_s"].values())
        yield (
            f"| {row['model']} | {row['workers']} | {row['strategy']}, {row['micro_batches']} | "
            f"{row['contrast_bytes'] / 1e6:,.1f} | {row['weight_bytes'] / 1e9:.3g} | {row['compute_s']:.3f} | "
            f"{seconds} |"
        )


def checkpoint_lines(hash_bytes_per_s: float) -> Iterator[str]:
    """Size of a checkpoint, and the seconds of writing it and of the checksum over what is read back."""
    yield "| model | GB | at 1 GB/s, s | at 10 GB/s, s | checksum, s | each of 64 workers its part, 1 GB/s each, s |"
    yield "|---|---|---|---|---|---|"
    for name in SHAPES:
        size = parameters(name)
        gb = (12 * size.trained + 4 * size.frozen) / 1e9
        yield f"| {name} | {gb:.2f} | {gb:.1f} | {gb / 10:.2f} | {gb * 1e9 / hash_bytes_per_s:.1f} | {gb / 64:.2f} |"


def cost(*, gpus: int, hours: float, price_gpu_hour: float, gb: float, months: float, price_gb_month: float) -> float:
    """GPU hours × price + storage; the prices are whoever pays' own."""
    return gpus * hours * price_gpu_hour + gb * months * price_gb_month


def training_hours(name: str, *, epochs: int, rows: float, workers: int) -> float:
    """Computation of a training, without network and waiting."""
    steps = epochs * rows / (workers * WORKER_BATCH)
    return steps * step_seconds(parameters(name), micro_batches=MICRO_BATCHES) / 3600


def main() -> None:
    """Print what of docs/scale.md is in no results file: it takes a second."""
    for name in SHAPES:
        seconds = step_seconds(parameters(name), micro_batches=MICRO_BATCHES)
        equal = ", ".join(f"{workers_where_contrast_equals(seconds, link):,.0f} at {link}" for link in LINKS_GBIT)
        hours = 512 * training_hours(name, epochs=35, rows=ROWS, workers=512)
        print(f"{name}: GC takes as long as the computation with workers, at Gbit/s: {equal}")
        price = cost(gpus=1, hours=hours, price_gpu_hour=1, gb=150, months=1, price_gb_month=0.01)
        print(f"{name}: {hours:,.0f} GPU-hours for 35 epochs; {price:,.0f} where one costs 1, a GB-month 0.01")
    hours = ASSUMED["residues"] / ASSUMED["embedding_residues_per_gpu_s"] / 3600
    print(f"embedding: {hours:,.0f} GPU-hours")


if __name__ == "__main__":
    main()
