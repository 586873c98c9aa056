"""A model of random weights that is made in a moment, and an index of sequences by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from index_folders import write_embeddings

from protclip.config import EncoderConfig, ModelConfig
from protclip.embedding import ProtCLIP
from protclip.index.embeddings import read_embeddings
from protclip.index.hnsw import HnswConfig
from protclip.index.index import build_index
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
WORDS = ("kinase", "binds", "membrane", "hydrolyses", "ATP", "transports", "nucleus", "ribosome", "the", "of")


def tiny_model(seed: int = 0) -> ProtCLIP:
    """A dual encoder of one layer a side; another seed is another model."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ModelConfig(
        projection_dim=24,
        protein=EncoderConfig(max_tokens=64, config=shape),
        text=EncoderConfig(max_tokens=32, config={**shape, "vocab_size": 120}),
    )
    tokenizer = build_text_tokenizer(config, random_texts(50))
    model = build_model(config, build_architecture(config, tokenizer), seed=seed)
    return ProtCLIP(model, build_protein_tokenizer(config), tokenizer)


def random_sequences(count: int, seed: int = 0) -> list[str]:
    """Sequences of 5 to 90 residues: some are longer than the tiny model sees."""
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list(RESIDUES), size=n)) for n in generator.integers(5, 91, size=count)]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 39 words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size=n)) for n in generator.integers(3, 40, size=count)]


def write_protein_index(folder: Path, model: ProtCLIP, sequences: list[str]) -> str:
    """An index of the sequences: row i is P0000i."""
    vectors = model.embed_proteins(sequences)
    embeddings = write_embeddings(folder / "embeddings", vectors, fingerprint=model.fingerprint)
    build_index(read_embeddings(embeddings), str(folder / "index"), HnswConfig())
    return str(folder / "index")
