"""What a run would take, told before it begins."""

from __future__ import annotations

import pyarrow as pa
import torch

from protclip.config import PretrainConfig
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.train.checkpoints import NUM_NEWEST

ACTIVATION_BYTES = 34
"""Of what backward needs, per token, layer and hidden unit in half precision (Korthikanti et al. 2022,
arXiv:2205.05198, without attention scores)."""


def estimate(config: PretrainConfig, architecture: Architecture, tokens: pa.Table, *, num_steps: int) -> list[str]:
    """Lines on parameters, memory, checkpoints and tokens.

    Args:
        config: of the run.
        architecture: of its model.
        tokens: some pairs of ``TOKEN_SCHEMA``, whose lengths stand for all.
        num_steps: of the run.
    """
    with torch.device("meta"):
        model = DualEncoder(architecture, freeze_text=config.model.text.pretrained is not None)
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    frozen = sum(value.numel() for value in model.parameters()) - trained
    # fp32: weights, gradients and AdamW's two moments; of frozen ones the weights alone.
    fixed_gb = (16 * trained + 4 * frozen) / 1e9 / (config.workers.num if config.workers.strategy == "fsdp" else 1)
    protein_tokens, text_tokens = (
        float(tokens.column(name).combine_chunks().value_lengths().to_numpy().mean())
        for name in ("protein_ids", "text_ids")
    )
    num_pairs = config.worker_batch_size // config.batch.micro_batches
    width = ACTIVATION_BYTES * (1 if config.precision == "bfloat16" else 2)
    shape = architecture.protein
    units = _protein_passes(config) * protein_tokens * shape.num_hidden_layers * shape.hidden_size
    total_tokens = num_steps * config.batch.global_batch_size * (protein_tokens + text_tokens)
    return [
        f"{trained:,} parameters are trained, {frozen:,} frozen",
        f"memory of a worker: {fixed_gb:.2f} GB for weights, gradients and optimizer; about "
        f"{num_pairs * units * width / 1e9:.2f} GB for what backward needs of {num_pairs} pairs (an estimate)",
        f"a checkpoint takes {(12 * trained + 4 * frozen) / 1e9:.2f} GB; at most "
        f"{config.keep_checkpoints + NUM_NEWEST} are kept",
        f"{protein_tokens:.0f} protein and {text_tokens:.0f} text tokens a pair on average; {total_tokens:,.0f} in all "
        f"{num_steps:,} steps",
    ]


def _protein_passes(config: PretrainConfig) -> int:
    """How often a step encodes each protein."""
    masked = [config.objectives.mlm > 0, config.objectives.bsr > 0]
    return 1 + (any(masked) if config.objectives.masked_passes == "shared" else sum(masked))
