"""``protclip index --dry-run``: what an index takes in memory, on disk and in time, from a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from protclip import files
from protclip.embeddings.reading import Embeddings
from protclip.index.build import build_bytes, check_embeddings
from protclip.index.config import BuildConfig
from protclip.index.hnsw import found_with, graph_bytes, insert, start_graph
from protclip.index.nodes import group_equal
from protclip.index.recall import LADDER
from protclip.index.rotation import fit, project, sample_rows
from protclip.index.subindex import EXACT_ROWS
from protclip.index.units import load_rows
from protclip.parquet import open_parquet

MACHINES_GB = (24, 64, 256)
SHARE_OF_MEMORY = 0.7
"""Of a machine, for indexes: the rest is for the model, the system and its cache of the vectors."""
MEASURED_ROWS = 4_000
"""Of the sample, from whose insertion the time is told, behind the others."""


def estimate(embeddings: Embeddings, config: BuildConfig) -> Iterator[str]:
    """Lines that say what building and serving would take; nothing is written.

    The vectors are read for the sample alone, accessions not at all. The time is that of the last vectors of a graph
    over the sample, and grows with the logarithm of a subindex's rows.

    Raises:
        ConfigError, DataError: as ``check_embeddings``.
        DataError: if the embeddings are damaged, where the sample is.
    """
    check_embeddings(embeddings, config.index)
    parts = [files.join(embeddings.folder, name) for name in embeddings.part_names]
    graph, part_rows = config.index.graph, files.in_threads(_num_rows, parts)
    count, dimension = sum(part_rows), embeddings.dimension
    vectors_RD, hashes_R, table = load_rows(embeddings, part_rows, sample_rows(count, graph.seed), "the sample")
    node_R = group_equal(vectors_RD, hashes_R)
    share = (int(node_R.max()) + 1) / len(node_R)
    vectors_ND = vectors_RD[np.unique(node_R, return_index=True)[1]]
    width = config.index.graph_dimension
    in_graph = vectors_ND
    if (count > EXACT_ROWS) if width is None else (0 < width < dimension):
        rotation = fit(vectors_ND, width, config.index.recall)
        in_graph = project(vectors_ND, rotation.axes_ED) if rotation.width else vectors_ND
    is_compact, width = in_graph.shape[1] < dimension, in_graph.shape[1]

    measured = min(MEASURED_ROWS, -(-len(in_graph) // 5))
    hnsw = start_graph(len(in_graph), width, graph)
    if len(in_graph) > measured:  # not of a single vector
        insert(hnsw, in_graph[:-measured])
    began = time.process_time()
    insert(hnsw, in_graph[-measured:])
    inserted_s = (time.process_time() - began) / measured
    began = time.process_time()
    found_with(hnsw, in_graph, LADDER)
    inserted_s += (time.process_time() - began) / len(in_graph)
    shards = -(-count // config.index.shard_rows)
    rows = -(-count // shards)
    row_s = inserted_s * share * max(1.0, math.log(rows * share) / math.log(max(2, len(in_graph))))

    graph_row = share * graph_bytes(1_000, width, graph.m) / 1_000
    known_row = table.nbytes / len(table)
    vectors_row = share * 2 * dimension if is_compact else 0
    memory = count * (graph_row + known_row)
    yield (
        f"{count:,} {embeddings.content}s of {dimension} numbers"
        + ("" if share == 1 else f"; {1 - share:.1%} of a sample share the vector of another row")
    )
    yield (
        f"memory: {graph_row:,.0f} bytes a row for graphs of "
        + (f"{width} numbers a vector" if is_compact else "the whole vectors")
        + f", {known_row:,.0f} for what is known of it; {memory / 1e9:,.2f} GB"
    )
    yield (
        f"disk: {graph_row + vectors_row:,.0f} bytes a row, and what is known of it, compressed; "
        f"{count * (graph_row + vectors_row) / 1e9:,.2f} GB"
    )
    yield (
        f"time: {1e3 * row_s:.2f} ms a row on a core of this machine, {count * row_s / 3600:,.2f} core-hours without "
        f"the measuring of recall; subindexes: {shards:,}, each built by a core with "
        f"{build_bytes(rows, dimension, graph.m) / 2**30:.1f} GiB"
    )
    machines = (f"{-(-memory // (SHARE_OF_MEMORY * gb * 1e9)):.0f} of {gb} GB" for gb in MACHINES_GB)
    yield "served by machines: " + ", or ".join(machines)
    yield f"read: {count * 4 * dimension / 1e9:,.2f} GB of vectors, by each subindex its own"


def _num_rows(path: str) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)
