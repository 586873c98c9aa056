"""A worker of protclip embed over many parts: what it holds does not grow with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import RESIDUES, WORDS

from protclip.config import EncoderConfig, ModelConfig
from protclip.embeddings.parts import EmbedBlock
from protclip.embeddings.settings import EmbedConfig
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.protanno.shards import SCHEMA
from protclip.trained_model import ProtCLIP

PARTS, PART_ROWS = 100, 64


def wide_model() -> ProtCLIP:
    """As wide as ESM-2 8M, whose tensors of a full batch are of 5 and 21 MB, and one layer deep."""
    wide = {"hidden_size": 320, "num_hidden_layers": 1, "num_attention_heads": 20, "intermediate_size": 1280}
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = ModelConfig(
        projection_dim=64,
        protein=EncoderConfig(max_tokens=1024, config=wide),
        text=EncoderConfig(max_tokens=32, config={**small, "vocab_size": 100}),
    )
    tokenizer = build_text_tokenizer(config, [" ".join(WORDS)])
    model = build_model(config, build_architecture(config, tokenizer), seed=0)
    return ProtCLIP(model, build_protein_tokenizer(config), tokenizer)


@pytest.mark.prove
def test_what_a_worker_holds_after_a_part_is_the_same_after_a_hundred(tmp_path: Path) -> None:
    wide_model().save_pretrained(str(tmp_path / "model"))
    generator = np.random.default_rng(0)
    lengths = np.clip(260 * np.exp(0.7 * generator.standard_normal(PARTS * PART_ROWS)), 30, 1022).astype(int)
    rows = [
        {"accession": f"A{i}", "sequence": "".join(generator.choice(list(RESIDUES), n)), "name": "kinase", "ec": []}
        | {"sequence_hash": 0, "probability": 1.0}
        for i, n in enumerate(lengths)
    ]
    path = str(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=PART_ROWS)
    config = EmbedConfig(
        inputs=(path,),
        checkpoint=str(tmp_path / "model"),
        output=str(tmp_path),
        content="protein",
        long="truncate",
        dtype="float32",
    )
    worker = EmbedBlock(config, str(tmp_path / "work"))
    held = []
    for number in range(PARTS):
        worker({"path": path, "row_groups": [number], "unit": f"{number:05d}", "pairs": True})
        held.append(psutil.Process().memory_info().rss / 1e6)
    print(f"MB after parts 10, 20 … {PARTS}: {', '.join(f'{size:.0f}' for size in held[9::10])}")
    assert held[-1] < 1.1 * held[9]
