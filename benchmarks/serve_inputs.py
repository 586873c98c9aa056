"""What the benchmarks of serving serve and ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from index import clustered

from protclip.config import GC_ALONE, EncoderConfig, ModelConfig
from protclip.embeddings.reading import METADATA, read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.manifest import write_manifest
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.trained_model import ProtCLIP

TEXT = "FUNCTION: Catalyzes the hydrolysis of ATP in the membrane."
QUESTION = {"text": TEXT, "k": 10}


def random_sequences(count: int) -> list[str]:
    """Of 100 to 599 residues, seeded."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(100, 600, size=count)
    return ["".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=size)) for size in sizes]


TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}


def made(folder: Path, count: int, shape: dict[str, int] = TINY) -> tuple[str, str]:
    """An index of clustered vectors, and the checkpoint of a model, which is said to have made them.

    Args:
        folder: for both.
        count: vectors.
        shape: of both encoders.
    """
    config = ModelConfig(
        projection_dim=512,
        protein=EncoderConfig(max_tokens=1024, config=shape),
        text=EncoderConfig(max_tokens=512, config={**shape, "vocab_size": 500}),
    )
    tokenizer = build_text_tokenizer(config, [TEXT, "Binds iron.", "Transports glucose into the nucleus."])
    network = build_model(config, build_architecture(config, tokenizer, GC_ALONE), seed=0)
    model = ProtCLIP(network, build_protein_tokenizer(config), tokenizer)
    model.save_pretrained(str(folder / "model"))
    return index_of(folder, count, model.fingerprint), str(folder / "model")


def index_of(folder: Path, count: int, fingerprint: str) -> str:
    """An index of clustered vectors that a model of this fingerprint is said to have made."""
    vectors, _ = clustered(count, 1)
    columns = {field.name: pa.nulls(count, field.type) for field in METADATA}
    columns["accession"] = pa.array([f"A{i:07d}" for i in range(count)])
    columns["name"] = pa.array([f"Protein {i} of the membrane" for i in range(count)])
    columns["organism"] = pa.array(["Homo sapiens"] * count)
    columns["gene"] = pa.array([[f"GEN{i}"] for i in range(count)], METADATA.field("gene").type)
    columns["ec"] = pa.array([["3.6.1.3"]] * count, METADATA.field("ec").type)
    columns["length"] = pa.array(range(count), METADATA.field("length").type)
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    (folder / "embeddings").mkdir()
    pq.write_table(pa.table(columns), folder / "embeddings" / "part-00000.parquet")
    write_manifest(
        str(folder / "embeddings"),
        "embeddings",
        ["part-00000.parquet"],
        content="protein",
        model_fingerprint=fingerprint,
        dimension=vectors.shape[1],
        rows=count,
        settings={"dtype": "float32"},
    )
    build_from(read_embeddings(str(folder / "embeddings")), str(folder / "index"), IndexConfig())
    return str(folder / "index")
