"""Other kernels for the packed encoder on one CUDA device: FlexAttention, padding, ``torch.compile``. A minute or two.

    python benchmarks/gpu_kernels.py            32,768 tokens
    python benchmarks/gpu_kernels.py --quick    8,192 tokens
    python benchmarks/gpu_kernels.py --cpu      a tiny shape on this processor, to see that all compute the same

Attention alone, in bf16, at the heads of ESM-2 650M, forward and backward, over sequences whose lengths are as
UniProt's are:

    varlen    torch's variable-length attention over the packed row, which the package uses
    flex      FlexAttention over the same row, compiled, with a block mask that keeps sequences apart
    padded    scaled dot-product attention over a rectangle with a mask

And some layers of that model, forward and backward, as they are and under ``torch.compile``, for one batch: compiled
code is of its lengths, so that each batch of a run would be compiled anew. What compiling takes is not in the times.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gpu_train_step import ESM2_650M, TINY
from report import Claim, write_results
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from train_step import MAX_RESIDUES, MEDIAN_RESIDUES, SPREAD

from protclip.model.build import ESM2_FIELDS
from protclip.model.encoders import build_encoder, encoder_config
from protclip.model.packed import Packing, attend, esm_hidden, pack_rows, unpack
from protclip.model.precision import autocast

LAYERS = 4
"""Of the model under ``torch.compile``: all 33 would take minutes to compile."""
REPEATS = 10


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tokens")
    parser.add_argument("--cpu", action="store_true", help="a tiny shape on this processor")
    arguments = parser.parse_args()
    if arguments.cpu:
        check(*attentions(TINY, 256, torch.device("cpu"), compiled=False))
        plain, fast = encoders(TINY, 256, torch.device("cpu"))
        torch.testing.assert_close(fast(), plain(), rtol=0.05, atol=0.05)
        print("gpu_kernels: the tiny shape gives the same numbers in all kernels; nothing was measured.")
        return
    if not torch.cuda.is_available():
        sys.exit("gpu_kernels: torch finds no CUDA device here; nothing was measured. --cpu tries a tiny shape.")
    device, num_tokens = torch.device("cuda", 0), 8_192 if arguments.quick else 32_768
    functions, inputs = attentions(ESM2_650M, num_tokens, device, compiled=True)
    check(functions, inputs)
    attention = {name: seconds(partial(run, *inputs)) for name, run in functions.items()}
    plain, fast = encoders({**ESM2_650M, "num_hidden_layers": LAYERS}, num_tokens, device)
    layers = {"eager": seconds(plain), "compiled": seconds(fast)}
    claims = [
        Claim(claim="attention_flex_over_varlen", value=attention["flex"] / attention["varlen"], unit="x the time"),
        Claim(claim="attention_padded_over_varlen", value=attention["padded"] / attention["varlen"], unit="x the time"),
        Claim(claim="layers_eager_over_compiled", value=layers["eager"] / layers["compiled"], unit="x the time"),
    ]
    lines = [
        f"{num_tokens:,} tokens, forward and backward, median of {REPEATS}; the layers are {LAYERS} of ESM-2 650M's.",
        "",
        "| what | ms |",
        "|---|---|",
        *(f"| attention, {name} | {1e3 * time_s:.2f} |" for name, time_s in attention.items()),
        *(f"| layers, {name} | {1e3 * time_s:.2f} |" for name, time_s in layers.items()),
    ]
    figures: dict[str, Any] = {"attention_s": attention, "layers_s": layers}
    write_results("gpu_kernels", claims, figures, "\n".join(lines), quick=arguments.quick)


def packed_row(num_tokens: int, device: torch.device) -> tuple[Tensor, Packing]:
    """So many tokens of random sequences, the last one cut."""
    generator = np.random.default_rng(0)
    lengths: list[int] = []
    while (left := num_tokens - sum(lengths)) > 0:
        drawn = MEDIAN_RESIDUES * np.exp(SPREAD * generator.standard_normal())
        lengths.append(min(int(np.clip(drawn, 30, MAX_RESIDUES)), left))
    return pack_rows([generator.integers(4, 24, length) for length in lengths], device)


def attentions(
    shape: dict[str, int], num_tokens: int, device: torch.device, *, compiled: bool
) -> tuple[dict[str, Callable[..., Tensor]], list[Tensor]]:
    """The three kernels, queries, keys and values (T, N, E) to (T, N · E); and such inputs."""
    _, packing = packed_row(num_tokens, device)
    heads = shape["num_attention_heads"]
    size = (num_tokens, heads, shape["hidden_size"] // heads)
    inputs = [torch.randn(size, device=device, dtype=torch.bfloat16, requires_grad=compiled) for _ in range(3)]
    sequence_T = packing.sequence_T

    def same_sequence(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        return sequence_T[query] == sequence_T[key]

    mask = create_block_mask(same_sequence, None, None, num_tokens, num_tokens, device=device)
    kernel: Any = torch.compile(flex_attention) if compiled else flex_attention

    def varlen(query_TNE: Tensor, key_TNE: Tensor, value_TNE: Tensor) -> Tensor:
        return attend(query_TNE, key_TNE, value_TNE, packing)

    def flex(*qkv_TNE: Tensor) -> Tensor:
        query_1NTE, key_1NTE, value_1NTE = (x_TNE.transpose(0, 1)[None] for x_TNE in qkv_TNE)
        read_1NTE: Tensor = kernel(query_1NTE, key_1NTE, value_1NTE, block_mask=mask)
        return read_1NTE[0].transpose(0, 1).flatten(1)

    real_SL = torch.arange(max(packing.lengths), device=device) < packing.length_S[:, None]

    def padded(*qkv_TNE: Tensor) -> Tensor:
        rectangles = (unpack(x_TNE.flatten(1), packing) for x_TNE in qkv_TNE)
        query, key, value = (x_SLH.view(*x_SLH.shape[:2], *size[1:]).transpose(1, 2) for x_SLH in rectangles)
        read_SNLE = scaled_dot_product_attention(query, key, value, attn_mask=real_SL[:, None, None])
        return read_SNLE.transpose(1, 2).flatten(2)[real_SL]

    return {"varlen": varlen, "flex": flex, "padded": padded}, inputs


def check(functions: dict[str, Callable[..., Tensor]], inputs: list[Tensor]) -> None:
    """That all kernels compute the same."""
    with torch.no_grad():
        wanted, *others = (run(*inputs).float() for run in functions.values())
    for found in others:
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def encoders(
    shape: dict[str, int], num_tokens: int, device: torch.device
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The packed forward of an encoder on one batch, as it is and compiled."""
    torch.manual_seed(0)
    with device:
        encoder = build_encoder("protein", encoder_config("protein", {**shape, **ESM2_FIELDS}))
    ids_T, packing = packed_row(num_tokens, device)
    compiled: Any = torch.compile(esm_hidden, dynamic=False)

    def run(function: Any) -> Tensor:
        with autocast(device, "bfloat16"):
            hidden_TH: Tensor = function(encoder, ids_T, packing)
        return hidden_TH

    return lambda: run(esm_hidden), lambda: run(compiled)


def seconds(forward: Callable[[], Tensor]) -> float:
    """Of a forward and a backward pass: the median of some, after two that warm up."""
    times = []
    for _ in range(2 + REPEATS):
        torch.cuda.synchronize()
        before = time.monotonic()
        forward().sum().backward()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        times.append(time.monotonic() - before)
    return float(np.median(times[2:]))


if __name__ == "__main__":
    main()
