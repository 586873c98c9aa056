"""The units of work of which an index is built: a subindex is built, sampled for queries, and measured with all.

WORK/building/segment-00000.npz …     the queries held out from a subindex, and what its graph found before it held them
WORK/sampling/segment-00000.npz …     queries that are live rows of a subindex
WORK/measuring/segment-00000.npz …    scores of all queries in a subindex
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import Embeddings
from protclip.index import recall, releases
from protclip.index.arrays import read_arrays, write_arrays
from protclip.index.exact import BLOCK_ROWS
from protclip.index.hnsw import HnswConfig, check_unit_vectors, found_with, insert, save_graph, start_graph
from protclip.index.nodes import group_equal
from protclip.index.queries import queries_path
from protclip.index.rotation import project, read_rotation
from protclip.index.subindex import Subindex
from protclip.index.subindex_files import (
    SubindexReport,
    counts_of,
    graph_file,
    read_rows,
    rows_file,
    rows_table,
    subindex_files,
    subindex_number,
    vector_hashes,
    vectors_file,
    write_rows,
)
from protclip.index.whole_vectors import write_vectors
from protclip.manifest import describe
from protclip.units import Report


class BuildItem(TypedDict):
    """A subindex that is built."""

    unit: str
    """Its name."""
    number: int
    start: int
    """Of its rows, among all or those that are new."""
    stop: int
    outside: int
    """Rows that are questions before the graph holds them, at most."""
    delta: bool
    """Whether its rows are those that are new in a release."""


class MeasureItem(TypedDict):
    """A subindex that is there."""

    unit: str
    """Its name."""
    nodes: int
    inside: int
    """Live nodes that are questions."""


def build_subindex(
    item: BuildItem,
    *,
    embeddings: Embeddings,
    part_rows: Sequence[int],
    folder: str,
    work: str,
    graph_config: HnswConfig,
    efs: Sequence[int],
    enough_recall: float,
    rotation: str | None,
) -> SubindexReport:
    """Build a subindex of rows ``start`` to ``stop``: of all rows, or of a release's new ones."""
    name, count = item["unit"], item["stop"] - item["start"]
    chosen = np.arange(item["start"], item["stop"])
    if item["delta"]:
        chosen = read_arrays(files.join(work, releases.MATCH_FILE))["new"][chosen]
    vectors_RD, hashes_R, table = load_rows(embeddings, part_rows, chosen, name)
    node_R = group_equal(vectors_RD, hashes_R)
    num_nodes = int(node_R.max()) + 1
    num_outside = min(item["outside"], num_nodes // 10)
    is_outside_N = np.zeros(num_nodes, bool)
    rng = np.random.default_rng([graph_config.seed, item["number"]])
    is_outside_N[rng.choice(num_nodes, num_outside, replace=False)] = True
    place_N = np.empty(num_nodes, np.int64)
    place_N[np.argsort(is_outside_N, kind="stable")] = np.arange(num_nodes)
    node_R = place_N[node_R]
    accessions = pc.rank(table["accession"], sort_keys="ascending", tiebreaker="first").to_numpy()
    order_R = np.lexsort((accessions, node_R))
    node_R = node_R[order_R]
    vectors_ND = vectors_RD[order_R[np.flatnonzero(np.diff(node_R, prepend=-1))]]
    del vectors_RD

    def rows(found_with_N: NDArray[np.int32]) -> pa.Table:
        metadata = table.take(pa.array(order_R))
        return rows_table(metadata, np.ones(count, bool), hashes_R[order_R], node_R, found_with_N[node_R])

    rotated = read_rotation(rotation)
    in_graph = vectors_ND if rotated is None else project(vectors_ND, rotated.axes_ED)
    graph = start_graph(num_nodes, in_graph.shape[1], graph_config)
    held = num_nodes - num_outside
    insert(graph, in_graph[:held])
    all_found = rows(np.zeros(num_nodes, np.int32))
    so_far = Subindex(vectors_ND[:held], all_found.slice(0, int(np.searchsorted(node_R, held))), graph, rotated)
    before = recall.measure(so_far, vectors_ND[held:], efs, enough_recall=enough_recall)
    if num_outside:
        insert(graph, in_graph[held:])
    found_with_N = found_with(graph, in_graph, sorted({*recall.LADDER, *efs}))
    with writable_copy(files.join(folder, graph_file(name))) as path:
        save_graph(graph, in_graph, path)
    if rotated is not None:
        write_vectors(files.join(folder, vectors_file(name)), vectors_ND, rotated.mean_D)
    write_rows(files.join(folder, rows_file(name)), rows(found_with_N))
    write_arrays(
        files.join(work, "building", f"{name}.npz"), {"outside_vectors": vectors_ND[held:], **before.arrays("outside")}
    )
    return {
        "name": name,
        "rows": count,
        "live": count,
        "nodes": num_nodes,
        "live_nodes": num_nodes,
        "found_with": counts_of(found_with_N),
        "delta": item["delta"],
        "files": {
            file: describe(files.join(folder, file)) for file in subindex_files(name, is_compact=rotation is not None)
        },
    }


def load_rows(
    embeddings: Embeddings, part_rows: Sequence[int], chosen: NDArray[np.int64], name: str
) -> tuple[NDArray[np.float32], NDArray[np.uint64], pa.Table]:
    """Vectors of unit length, hashes of what they were, and metadata of some rows, counted through all parts."""
    vectors_RD = np.empty((len(chosen), embeddings.dimension), np.float32)
    hashes_R = np.empty(len(chosen), np.uint64)
    tables, starts = [], np.cumsum([0, *part_rows])
    for i, part in enumerate(embeddings.part_names):
        low, high = np.searchsorted(chosen, starts[i : i + 2])
        if low == high:
            continue
        of_part, metadata = embeddings.part(part)
        rows = chosen[low:high] - starts[i]
        tables.append(metadata.take(pa.array(rows)))
        for start in range(0, len(rows), BLOCK_ROWS):
            block = of_part[rows[start : start + BLOCK_ROWS]]
            mine = slice(low + start, low + start + len(block))
            check_unit_vectors(
                block, f"{files.join(embeddings.folder, part)}, among rows {mine.start} to {mine.stop} of {name}"
            )
            hashes_R[mine] = vector_hashes(block)
            np.divide(block, np.linalg.norm(block, axis=1, keepdims=True), out=vectors_RD[mine])
    return vectors_RD, hashes_R, pa.concat_tables(tables)


def sample_subindex(
    item: MeasureItem, *, folder: str, work: str, dimension: int, rotation: str | None, seed: int
) -> Report:
    """Sample live vectors of a subindex, each once, as queries."""
    name = item["unit"]
    with loaded_subindex(item, folder, dimension, rotation) as (subindex, hashes):
        rng = np.random.default_rng([seed, 1, subindex_number(name)])
        nodes = np.sort(rng.choice(np.flatnonzero(subindex.live_N), item["inside"], replace=False))
        rows = subindex.nodes.first_rows(nodes)
        sample = {"hashes": hashes.to_numpy()[rows], "vectors": subindex.vectors(rows)}
        write_arrays(files.join(work, "sampling", f"{name}.npz"), sample)
    return {}


def measure_subindex(
    item: MeasureItem,
    *,
    folder: str,
    work: str,
    dimension: int,
    rotation: str | None,
    efs: Sequence[int],
    enough_recall: float,
    names: Sequence[str],
    given: Sequence[str],
) -> Report:
    """The scores of all queries in a subindex, as it was saved; a vector is no answer to itself, wherever it comes."""
    own = item["unit"]
    with loaded_subindex(item, folder, dimension, rotation, with_graph=True, num_threads=1) as (subindex, hashes):
        inside = [read_arrays(files.join(work, "sampling", f"{name}.npz")) for name in names]
        asked = pa.array(np.concatenate([sample["hashes"] for sample in inside]))
        own_rows = pc.fill_null(pc.index_in(asked, value_set=hashes), -1).to_numpy()
        own_nodes = np.where(own_rows < 0, -1, subindex.nodes.of_rows(own_rows))
        vectors = np.concatenate([sample["vectors"] for sample in inside])
        measure = partial(recall.measure, subindex, efs=efs, enough_recall=enough_recall)
        arrays = measure(vectors, own_nodes=own_nodes).arrays("inside")
        outside = []
        for name in names:
            path = files.join(work, "building", f"{name}.npz")
            if files.exists(path):  # not of a subindex that was taken over
                stored = read_arrays(path)
                if name == own:
                    outside.append(recall.Scores.of(stored, "outside", len(efs)))
                else:
                    outside.append(measure(stored["outside_vectors"]))
        if not outside:
            outside.append(measure(np.empty((0, dimension), np.float32)))
        arrays.update(recall.joined(outside).arrays("outside"))
        for kind in given:
            vectors = read_arrays(queries_path(work, kind))["vectors"]
            arrays.update(measure(vectors).arrays(kind))
    write_arrays(files.join(work, "measuring", f"{own}.npz"), arrays)
    return {}


@contextlib.contextmanager
def writable_copy(target: str) -> Iterator[str]:
    """A local path to write a file at, which then becomes the target, a path or URL."""
    if files.is_url(target):
        with tempfile.TemporaryDirectory(prefix="protclip-index-") as folder:
            yield f"{folder}/file"
            files.publish(f"{folder}/file", target)
        return
    path = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield path
        files.publish(path, target)
    finally:
        Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def loaded_subindex(
    item: MeasureItem, folder: str, dimension: int, rotation: str | None, **how: Any
) -> Iterator[tuple[Subindex, pa.ChunkedArray]]:
    """A subindex as it was saved, and the hashes of its rows' vectors; ``how`` as of ``Subindex.load``."""
    name = item["unit"]
    with contextlib.ExitStack() as stack:
        place = folder
        if files.is_url(folder):
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="protclip-index-"))
            for file in subindex_files(name, is_compact=rotation is not None):
                files.copy(files.join(folder, file), f"{place}/{file}")
        subindex = Subindex.load(
            place,
            name,
            nodes=item["nodes"],
            dimension=dimension,
            ef_search=10,
            rotation=read_rotation(rotation),
            **how,
        )
        yield subindex, read_rows(files.join(place, rows_file(name)), ["vector_hash"])["vector_hash"]
