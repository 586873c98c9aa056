"""The GPU benchmark's functions, on a CPU with a tiny shape."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from protclip.model.build import ESM2_FIELDS, NO_DROPOUT
from protclip.model.encoders import build_encoder, encoder_config

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu_train_step")


@pytest.mark.slow
def test_packed_and_padded_steps_are_of_the_same_tokens(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("train_step"), "NUM_PAIRS", 2)
    monkeypatch.setattr(benchmark, "NUM_PAIRS", 2)
    text = {**TINY, "vocab_size": 200}
    packed, padded = (
        benchmark.measured(TINY, text, attention, 2, steps=1, device=torch.device("cpu"))
        for attention in ("packed", "padded")
    )
    assert packed.pairs == padded.pairs == 2 * benchmark.NUM_PAIRS
    assert packed.tokens == padded.tokens > 0
    assert packed.flops == padded.flops > 0
    assert packed.step_s > 0


@pytest.mark.parametrize("kind", ["protein", "text"])
def test_flops_are_those_that_torch_counts(benchmark: ModuleType, kind: str) -> None:
    fields = {**TINY, **(ESM2_FIELDS if kind == "protein" else {**NO_DROPOUT, "vocab_size": 200})}
    config = encoder_config(kind, fields)  # type: ignore[arg-type]
    encoder = build_encoder(kind, config).eval()  # type: ignore[arg-type]
    ids = torch.full((3, 40), 5)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    counted = counter.get_total_flops()
    assert abs(benchmark.forward_flops(config, np.full(3, 40)) - counted) < 0.01 * counted


def test_peaks_go_by_the_device_s_name(benchmark: ModuleType) -> None:
    assert benchmark.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert benchmark.peak_flops("NVIDIA H100 PCIe") == 756e12
    assert benchmark.peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert benchmark.peak_flops("NVIDIA GeForce RTX 3090") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_device_it_ends_with_one_line(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_train_step.py"])
    with pytest.raises(SystemExit, match=r"^gpu_train_step: torch finds no CUDA device here; nothing was measured\.$"):
        benchmark.main()
