"""Folders of embeddings with known vectors, for the tests of index, search and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip.embeddings.reading import METADATA, read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index
from protclip.manifest import write_manifest

FINGERPRINT = "f" * 64


def unit_vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Random unit vectors, float32."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def write_embeddings(
    folder: Path,
    vectors: np.ndarray,
    *,
    parts: int = 2,
    fingerprint: str = FINGERPRINT,
    content: str = "protein",
    accessions: list[str] | None = None,
    columns: dict[str, list[Any]] | None = None,
    **body: Any,
) -> str:
    """A folder as ``protclip embed`` leaves it, in so many parts.

    ``columns`` replaces made-up ones or adds to them, ``body`` fields of the manifest.
    """
    folder.mkdir(parents=True)
    count, dimension = vectors.shape
    ids = accessions or [f"P{i:05d}" for i in range(count)]
    table = pa.table(
        {
            "accession": ids,
            "name": [None if i % 7 == 3 else f"Protein {i}" for i in range(count)],
            "organism": ["Homo sapiens"] * count,
            "organism_id": pa.array([9606] * count, pa.int32()),
            "reviewed": [i % 2 == 0 for i in range(count)],
            "length": pa.array(range(100, 100 + count), pa.int32()),
            "ec": pa.array([["1.1.1.1"] if i % 2 else [] for i in range(count)], pa.list_(pa.string())),
            "gene": pa.array([None if a[-1] == "0" else [f"g{a}", f"b_{a}"] for a in ids], pa.list_(pa.string())),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), dimension),
        }
    )
    if content == "text":
        table = table.append_column("text", pa.array([f"FUNCTION: {i}." for i in range(count)]))
    for name, values in (columns or {}).items():
        column = pa.array(values, METADATA.field(name).type)
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    bounds = np.linspace(0, count, parts + 1).astype(int)
    part_names = [f"part-{i:05d}.parquet" for i in range(parts)]
    for name, start, end in zip(part_names, bounds[:-1], bounds[1:], strict=True):
        pq.write_table(table.slice(start, end - start), folder / name)
    record = {"content": content, "model_fingerprint": fingerprint, "dimension": dimension, "rows": count, **body}
    write_manifest(str(folder), "embeddings", part_names, **record)
    return str(folder)


def built_index(folder: Path, vectors: np.ndarray, **how: Any) -> Index:
    """The index in ``folder / "index"`` of the embeddings in ``folder / "embeddings"``, both made; ``how`` of
    IndexConfig."""
    embeddings = read_embeddings(write_embeddings(folder / "embeddings", vectors))
    build_from(embeddings, str(folder / "index"), IndexConfig(**how))
    return Index.load(str(folder / "index"))
