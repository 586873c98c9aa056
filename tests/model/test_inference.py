"""An embedding depends on its protein, the model and the dtype alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts

from protclip.config import GC_ALONE, EncoderConfig, ModelConfig
from protclip.inputs import DTYPES, Dtype
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.trained_model import ProtCLIP

pytestmark = pytest.mark.unit

# Of one layer of ESM-2 8M: in narrower products no sum is rounded otherwise.
SHAPE = {"hidden_size": 320, "num_hidden_layers": 1, "num_attention_heads": 20, "intermediate_size": 1280}
NO_BFLOAT16 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
"""What makes torch compute as on a processor with AVX-512 and without instructions for bfloat16."""


def wide_model(dtype: Dtype) -> ProtCLIP:
    config = ModelConfig(
        projection_dim=320,
        protein=EncoderConfig(max_tokens=64, config=SHAPE),
        text=EncoderConfig(max_tokens=32, config={**SHAPE, "vocab_size": 120}),
    )
    tokenizer = build_text_tokenizer(config, random_texts(50))
    model = build_model(config, build_architecture(config, tokenizer, GC_ALONE), seed=0)
    return ProtCLIP(model, build_protein_tokenizer(config), tokenizer, dtype=dtype)


def farthest(dtype: Dtype) -> float:
    """The largest difference of a number of an embedding: alone or in company, on one thread or on three."""
    model = wide_model(dtype)
    sequences, texts = ["M", "MK", *random_sequences(12)], random_texts(14)
    found, num_threads = [], torch.get_num_threads()
    try:
        for threads, size in ((1, 14), (3, 14), (3, 1), (3, 3)):
            torch.set_num_threads(threads)
            proteins = [model.embed_proteins(sequences[start : start + size]) for start in range(0, 14, size)]
            described = [model.embed_texts(texts[start : start + size]) for start in range(0, 14, size)]
            found.append(np.concatenate([*proteins, *described]))
    finally:
        torch.set_num_threads(num_threads)
    return float(np.abs(np.stack(found) - found[0]).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.slow
def test_an_embedding_is_the_same_in_any_company_on_any_number_of_threads(dtype: Dtype) -> None:
    assert farthest(dtype) <= 1e-6


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 has instructions that can be left unused")
def test_so_it_is_in_bfloat16_on_a_processor_without_instructions_for_it() -> None:
    paths = [Path(__file__).parent, Path(__file__).parents[1]]
    code = "import test_inference as t, protclip.model.inference as m; "
    code += "print(m.has_fast_bfloat16(), t.farthest('bfloat16'))"
    environment = {**os.environ, **NO_BFLOAT16, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fast, difference = done.stdout.split()
    assert fast == "False"
    assert float(difference) <= 1e-6
