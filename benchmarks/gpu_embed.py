"""How fast proteins are embedded on one CUDA device: the packed forward at the size of ESM-2 650M. A minute or two.

    python benchmarks/gpu_embed.py            8,192 sequences
    python benchmarks/gpu_embed.py --quick    1,024 sequences
    python benchmarks/gpu_embed.py --cpu      a tiny shape on this processor, to see that it runs; no claims

Random weights, bf16, lengths as UniProt's are, seeded. It needs torch, transformers, numpy and pyarrow beside this
package, and no Ray: what is timed is ``ProtCLIP.embed_proteins``, from strings to vectors on the host. MFU is the
encoder's FLOPs for these residues over the device's bf16 peak.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Literal

import numpy as np
import torch
from gpu_train_step import ESM2_650M, TINY, forward_flops, peak_flops
from report import Claim, write_results
from train_step import MAX_RESIDUES, MEDIAN_RESIDUES, SPREAD

import protclip.passes
from protclip.config import EncoderConfig, ModelConfig
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.trained_model import ProtCLIP

TEXT_SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
BUDGETS = (8_192, 32_768, 131_072)
"""Tokens of one forward pass."""


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sequences")
    parser.add_argument("--cpu", action="store_true", help="a tiny shape on this processor")
    arguments = parser.parse_args()
    if arguments.cpu:
        for attention in ("packed", "padded"):
            measured(TINY, 64, torch.device("cpu"), BUDGETS[0], attention)
        print("gpu_embed: the tiny shape runs packed and padded; nothing was measured.")
        return
    if not torch.cuda.is_available():
        sys.exit("gpu_embed: torch finds no CUDA device here; nothing was measured. --cpu tries a tiny shape.")
    device = torch.device("cuda", 0)
    count = 1024 if arguments.quick else 8192
    found = {budget: measured(ESM2_650M, count, device, budget, "packed") for budget in BUDGETS}
    padded, _ = measured(ESM2_650M, count // 4, device, BUDGETS[1], "padded")
    peak = peak_flops(torch.cuda.get_device_name(device))
    rate, flops = max(found.values())
    claims = [
        Claim(claim="embed_650m_residues_per_s", value=rate, target=290e3, unit="residues/s"),
        Claim(claim="embed_650m_vs_padded", value=rate / padded, unit="x"),
    ]
    if peak is not None:
        claims.append(Claim(claim="embed_650m_mfu", value=flops / peak, target=0.4, unit="of bf16 peak"))
    lines = [
        f"{count:,} sequences, ESM-2 650M's shape, bf16. Padded, in batches of like length of {BUDGETS[1]:,} tokens: "
        f"{padded:,.0f} residues/s.",
        "",
        "| tokens a pass | residues/s | TFLOP/s |",
        "|---|---|---|",
        *(f"| {budget:,} | {rate:,.0f} | {flops / 1e12:.0f} |" for budget, (rate, flops) in found.items()),
    ]
    figures: dict[str, Any] = {str(budget): {"residues_per_s": r, "flops": f} for budget, (r, f) in found.items()}
    write_results(
        "gpu_embed",
        claims,
        {"peak_flops": peak, "padded_residues_per_s": padded, "budgets": figures},
        "\n".join(lines),
        quick=arguments.quick,
    )


def measured(
    shape: dict[str, int], count: int, device: torch.device, budget: int, attention: Literal["packed", "padded"]
) -> tuple[float, float]:
    """Residues and FLOPs a second, with so many tokens a pass."""
    config = ModelConfig(
        projection_dim=512,
        attention=attention,
        protein=EncoderConfig(max_tokens=MAX_RESIDUES + 2, config=shape),
        text=EncoderConfig(max_tokens=32, config={**TEXT_SHAPE, "vocab_size": 100}),
    )
    tokenizer = build_text_tokenizer(config, ["a protein that binds ATP"])
    network = build_model(config, build_architecture(config, tokenizer), seed=0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = ProtCLIP(network, build_protein_tokenizer(config), tokenizer, device=device, dtype=dtype)
    protclip.passes.GPU_TOKENS_PER_BATCH = budget
    generator = np.random.default_rng(0)
    lengths = np.clip(MEDIAN_RESIDUES * np.exp(SPREAD * generator.standard_normal(count)), 30, MAX_RESIDUES).astype(int)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    sequences = [generator.choice(letters, length).tobytes().decode() for length in lengths]
    model.embed_proteins(sequences[: max(8, count // 16)])  # the warm-up
    before = time.monotonic()
    vectors = model.embed_proteins(sequences)  # it ends with the vectors on the host
    seconds = time.monotonic() - before
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    return float(lengths.sum()) / seconds, forward_flops(network.architecture.protein, lengths + 2) / seconds


if __name__ == "__main__":
    main()
