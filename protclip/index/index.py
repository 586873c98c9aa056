"""The index folder: made once from embeddings, then only read.

INDEX/
  hnsw.bin           the graph; label i is row i
  metadata.parquet   row i: accession, name, organism, … as an answer shows them
  manifest.json      written last: model, counts, settings, measured recall, checksums
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protclip import files
from protclip.errors import ConfigError, DataError, IndexMismatchError
from protclip.index.embeddings import METADATA, Embeddings
from protclip.index.hnsw import (
    SPACE,
    HnswConfig,
    build_graph,
    check_unit_vectors,
    load_graph,
    measure_recall,
    save_graph,
    search_graph,
)
from protclip.index.manifest import GRAPH_FILE, KIND, METADATA_FILE, IndexManifest, read_index_manifest
from protclip.manifest import FILE_NAME, claim_folder, write_manifest

RECALL_QUERIES = 1_000
OWN_FILES = (GRAPH_FILE, METADATA_FILE, ".unfinished-*")


def build_index(embeddings: Embeddings, folder: str, config: HnswConfig, *, overwrite: bool = False) -> IndexManifest:
    """Build, save and prove an index.

    Args:
        embeddings: what is searched.
        folder: path or URL; hnswlib writes to the local disk alone, so a URL's files pass through a local folder.
        config: the graph's settings.
        overwrite: replace an index that is there.

    Raises:
        DataError: for vectors that are not finite unit vectors.
        ConfigError: if the folder holds something already, or cannot be written.
    """
    check_unit_vectors(embeddings.vectors, "embeddings")
    claim_folder(folder, OWN_FILES, overwrite=overwrite)
    graph = build_graph(embeddings.vectors, config)
    recall, num_queries = measure_recall(graph, embeddings.vectors, k=10, max_queries=RECALL_QUERIES, seed=config.seed)
    manifest = IndexManifest(
        content=embeddings.content,
        dimension=embeddings.vectors.shape[1],
        space=SPACE,
        model_fingerprint=embeddings.model_fingerprint,
        count=len(embeddings.vectors),
        m=config.m,
        ef_construction=config.ef_construction,
        ef_search=config.ef_search,
        seed=config.seed,
        recall_at_10=recall,
        recall_queries=num_queries,
    )
    try:
        with _scratch(folder) as scratch:
            graph_file = str(scratch / GRAPH_FILE)
            save_graph(graph, graph_file)
            pq.write_table(embeddings.metadata, scratch / METADATA_FILE)
            for name in (GRAPH_FILE, METADATA_FILE):
                files.copy(scratch / name, files.join(folder, name))
        body = {name: getattr(manifest, name) for name in IndexManifest.__slots__}
        write_manifest(folder, KIND, [GRAPH_FILE, METADATA_FILE], **body)
    except OSError as error:
        raise ConfigError(f"{folder}: the index cannot be written there ({error}).") from error
    return manifest


class Index:
    """A loaded index; it never changes, so searches may run side by side."""

    def __init__(self, manifest: IndexManifest, graph: hnswlib.Index, metadata: pa.Table) -> None:
        self.manifest = manifest
        self._graph = graph
        self._metadata = metadata

    @classmethod
    def load(cls, path: str, *, expect_fingerprint: str | None = None) -> Index:
        """Verify an index against its checksums, then load it.

        Args:
            path: path or URL.
            expect_fingerprint: of the model that will make the queries; None where vectors are searched as they are.

        Raises:
            DataError: if it is unfinished, damaged, or not an index.
            IndexMismatchError: if another model made it.
        """
        with _local_copy(path) as folder:
            manifest = read_index_manifest(folder, verify=True)
            if expect_fingerprint is not None:
                manifest.check_model(expect_fingerprint, path)
            graph = load_graph(
                files.join(folder, GRAPH_FILE),
                dimension=manifest.dimension,
                count=manifest.count,
                ef_search=manifest.ef_search,
            )
            metadata = _read_metadata(files.join(folder, METADATA_FILE))
        if len(metadata) != manifest.count:
            raise DataError(
                f"{path}: has {manifest.count} vectors and {len(metadata)} rows of metadata; make the index again."
            )
        return cls(manifest, graph, metadata)

    def __len__(self) -> int:
        return self.manifest.count

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest vectors of each query, best first.

        Args:
            queries: (n, dimension), unit length, by the model that made the index.
            k: 1 or more; more than the index holds gives all of it.

        Returns:
            cosines and rows, each of shape (n, min(k, len(self))).

        Raises:
            IndexMismatchError: for queries of another dimension.
            DataError: for queries that are not finite unit vectors.
        """
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dimension:
            raise IndexMismatchError(
                f"queries have shape {queries.shape}, the index holds vectors of dimension {self.manifest.dimension}; "
                "use the model that made it."
            )
        if k < 1:
            raise DataError(f"k={k}; 1 or more answers can be asked for.")
        if len(queries):
            check_unit_vectors(queries, "queries")
        return search_graph(self._graph, queries, min(k, len(self)))

    def hits(self, query: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """The answer to one query (dimension,), best first: rank from 1, score (cosine), and the row's columns."""
        scores, rows = self.search(query[None], k)
        found = zip(scores[0].tolist(), self.rows(rows[0]), strict=True)
        return [{"rank": rank, "score": score, **row} for rank, (score, row) in enumerate(found, start=1)]

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> list[dict[str, Any]]:
        """What an answer shows of the given rows, in their order: the columns of METADATA but the sequence hash."""
        shown = self._metadata.drop_columns("sequence_hash")
        return shown.take(pa.array(rows, pa.int64())).to_pylist()  # type: ignore[no-any-return]


@contextlib.contextmanager
def _scratch(folder: str) -> Iterator[Path]:
    """A local folder for what hnswlib writes: beside the output, where there is room for it, or the system's."""
    parent = None
    if not files.is_url(folder):
        files.make_folder(folder)
        parent = folder
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=parent) as scratch:
        yield Path(scratch)


@contextlib.contextmanager
def _local_copy(path: str) -> Iterator[str]:
    """The folder itself, or a copy of a URL's on the local disk for as long as it is loaded."""
    if not files.is_url(path):
        yield path
        return
    read_index_manifest(path)  # presence and sizes, before anything is fetched
    with tempfile.TemporaryDirectory(prefix="protclip-index-") as folder:
        for name in (GRAPH_FILE, METADATA_FILE, FILE_NAME):
            files.copy(files.join(path, name), f"{folder}/{name}")
        yield folder


def _read_metadata(path: str) -> pa.Table:
    try:
        return pq.read_table(path, schema=METADATA)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is not the metadata of an index ({error}); make the index again.") from error
