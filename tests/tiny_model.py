"""A model of random weights that is made in a moment, and an index of sequences by it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from index_folders import write_embeddings

from protclip.config import GC_ALONE, EncoderConfig, ModelConfig, ObjectivesConfig
from protclip.data.collate import Batch, Masking, collate
from protclip.data.tokenize import TOKENIZED_COLUMNS, ProteinTokenizer, TextTokenizer, tokenize_pairs
from protclip.embeddings.reading import read_embeddings
from protclip.hashing import hash64
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.inputs import Dtype
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.model.dual_encoder import DualEncoder
from protclip.protanno.shards import SCHEMA
from protclip.trained_model import ProtCLIP

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
WORDS = ("kinase", "binds", "membrane", "hydrolyses", "ATP", "transports", "nucleus", "ribosome", "the", "of")


def tiny_model(seed: int = 0, objectives: ObjectivesConfig = GC_ALONE, *, dtype: Dtype = "float32") -> ProtCLIP:
    """A dual encoder of one layer a side; another seed is another model."""
    model, protein_tokenizer, text_tokenizer = _made(seed, objectives)
    return ProtCLIP(copy.deepcopy(model), protein_tokenizer, text_tokenizer, dtype=dtype)


@functools.cache
def _made(seed: int, objectives: ObjectivesConfig) -> tuple[DualEncoder, ProteinTokenizer, TextTokenizer]:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ModelConfig(
        projection_dim=24,
        protein=EncoderConfig(max_tokens=64, config=shape),
        text=EncoderConfig(max_tokens=32, config={**shape, "vocab_size": 120}),
    )
    tokenizer = build_text_tokenizer(config, random_texts(50))
    model = build_model(config, build_architecture(config, tokenizer, objectives), seed=seed)
    return model, build_protein_tokenizer(config), tokenizer


def random_sequences(count: int, seed: int = 0) -> list[str]:
    """Sequences of 5 to 90 residues: some are longer than the tiny model sees."""
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list(RESIDUES), size=n)) for n in generator.integers(5, 91, size=count)]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 39 words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size=n)) for n in generator.integers(3, 40, size=count)]


def pairs_table(sequences: Sequence[str], properties: Sequence[Sequence[str | None]]) -> pa.Table:
    """Pairs A0, A1, … as tokenisation takes them, with these four properties each."""
    rows = [
        dict(zip(TOKENIZED_COLUMNS, (f"A{i}", sequence, *texts, hash64(sequence)), strict=True))
        for i, (sequence, texts) in enumerate(zip(sequences, properties, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([SCHEMA.field(name) for name in TOKENIZED_COLUMNS]))


def random_pairs(count: int, seed: int = 0) -> pa.Table:
    """Pairs with a name each, and each of the other properties in about half of them."""
    texts = np.array(random_texts(4 * count, seed), object).reshape(count, 4)
    present = np.random.default_rng(seed).random((count, 4)) < [1.0, 0.5, 0.5, 0.5]
    return pairs_table(random_sequences(count, seed), np.where(present, texts, np.array(None)).tolist())


def tokenized(model: ProtCLIP, pairs: pa.Table) -> pa.Table:
    """Rows of PROPERTY_SCHEMA."""
    return tokenize_pairs(pairs, model.protein_tokenizer, model.text_tokenizer, properties=True)


def make_batch(model: ProtCLIP, tokens: pa.Table, *, seed: int = 0, epoch: int = 0) -> Batch:
    """A batch with what the model's objectives need."""
    masking = Masking(
        objectives=model.model.architecture.objectives, seed=seed, epoch=epoch, mask_id=model.protein_tokenizer.mask_id
    )
    return collate(tokens, protein_pad_id=1, text_pad_id=0, masking=masking)


def write_protein_index(
    folder: Path,
    model: ProtCLIP,
    sequences: list[str],
    columns: dict[str, Any] | None = None,
    config: IndexConfig | None = None,
    dimensions: int | None = None,
) -> str:
    """An index of the sequences: row i is P0000i; ``columns`` are for ``write_embeddings``."""
    vectors = model.embed_proteins(sequences, dimensions=dimensions)
    settings = {"dtype": str(model.dtype).removeprefix("torch.")}
    embeddings = write_embeddings(
        folder / "embeddings", vectors, fingerprint=model.fingerprint, columns=columns, settings=settings
    )
    build_from(read_embeddings(embeddings), str(folder / "index"), config or IndexConfig())
    return str(folder / "index")
