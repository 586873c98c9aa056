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
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import Embeddings
from protclip.index import recall, releases
from protclip.index.arrays import read_arrays, write_arrays
from protclip.index.hnsw import HnswConfig, check_unit_vectors, insert, save_graph, start_graph
from protclip.index.queries import queries_path
from protclip.index.subindex import Subindex, SubindexReport, graph_file, rows_file, vector_hashes, write_rows
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
    rows: int
    inside: int
    """Live rows that are questions."""


def build_subindex(
    item: BuildItem,
    *,
    embeddings: Embeddings,
    part_rows: Sequence[int],
    folder: str,
    work: str,
    graph_config: HnswConfig,
    efs: Sequence[int],
) -> SubindexReport:
    """Build a subindex of rows ``start`` to ``stop``: of all rows, or of a release's new ones."""
    name, count = item["unit"], item["stop"] - item["start"]
    chosen = np.arange(item["start"], item["stop"])
    if item["delta"]:
        chosen = read_arrays(files.join(work, releases.MATCH_FILE))["new"][chosen]
    num_outside = min(item["outside"], count // 10)
    rng = np.random.default_rng([graph_config.seed, item["number"]])
    outside = np.zeros(count, bool)
    outside[rng.choice(count, num_outside, replace=False)] = True
    places = np.empty(count, np.int64)
    places[np.concatenate([np.flatnonzero(~outside), np.flatnonzero(outside)])] = np.arange(count)

    vectors = np.empty((count, embeddings.dimension), np.float32)
    hashes = np.empty(count, np.uint64)
    tables, done = [], 0
    for part, of_part, metadata in chosen_rows(embeddings, part_rows, chosen):
        mine = places[done : done + len(of_part)]
        check_unit_vectors(
            of_part, f"{files.join(embeddings.folder, part)}, among rows {done} to {done + len(mine)} of {name}"
        )
        hashes[mine] = vector_hashes(of_part)
        vectors[mine] = of_part / np.linalg.norm(of_part, axis=1, keepdims=True)
        tables.append(metadata)
        done += len(mine)
    table = pa.concat_tables(tables).take(pa.array(np.argsort(places)))
    live = np.ones(count, bool)

    graph = start_graph(count, embeddings.dimension, graph_config)
    held = count - num_outside
    insert(graph, vectors[:held])
    so_far = Subindex(vectors[:held], table.append_column("live", pa.array(live)).slice(0, held), graph)
    before = recall.measure(so_far, vectors[held:], efs)
    if num_outside:
        insert(graph, vectors[held:])
    with writable_copy(files.join(folder, graph_file(name))) as path:
        save_graph(graph, vectors, path)
    write_rows(files.join(folder, rows_file(name)), table, live, hashes)
    write_arrays(
        files.join(work, "building", f"{name}.npz"), {"outside_vectors": vectors[held:], **before.arrays("outside")}
    )
    return {
        "name": name,
        "rows": count,
        "live": count,
        "delta": item["delta"],
        "files": {file: describe(files.join(folder, file)) for file in (graph_file(name), rows_file(name))},
    }


def sample_subindex(item: MeasureItem, *, folder: str, work: str, dimension: int, seed: int) -> Report:
    """Sample live rows of a subindex, as queries."""
    name = item["unit"]
    with local_subindex(folder, name) as place:
        subindex = Subindex.load(place, name, rows=item["rows"], dimension=dimension, ef_search=10)
        rng = np.random.default_rng([seed, 1, int(name[-5:])])
        rows = np.sort(rng.choice(np.flatnonzero(subindex.live), item["inside"], replace=False))
        write_arrays(files.join(work, "sampling", f"{name}.npz"), {"rows": rows, "vectors": subindex.vectors[rows]})
    return {}


def measure_subindex(
    item: MeasureItem,
    *,
    folder: str,
    work: str,
    dimension: int,
    efs: Sequence[int],
    names: Sequence[str],
    given: Sequence[str],
) -> Report:
    """The scores of all queries in a subindex, as it was saved."""
    own = item["unit"]
    with local_subindex(folder, own) as place:
        subindex = Subindex.load(
            place, own, rows=item["rows"], dimension=dimension, ef_search=10, with_graph=True, num_threads=1
        )
        inside = [read_arrays(files.join(work, "sampling", f"{name}.npz")) for name in names]
        own_rows = [
            s["rows"] if name == own else np.full(len(s["rows"]), -1) for name, s in zip(names, inside, strict=True)
        ]
        vectors = np.concatenate([sample["vectors"] for sample in inside])
        arrays = recall.measure(subindex, vectors, efs, own_rows=np.concatenate(own_rows)).arrays("inside")
        outside = []
        for name in names:
            path = files.join(work, "building", f"{name}.npz")
            if files.exists(path):  # not of a subindex that was taken over
                stored = read_arrays(path)
                if name == own:
                    outside.append(recall.Scores.of(stored, "outside", len(efs)))
                else:
                    outside.append(recall.measure(subindex, stored["outside_vectors"], efs))
        if not outside:
            outside.append(recall.measure(subindex, np.empty((0, dimension), np.float32), efs))
        arrays.update(recall.joined(outside).arrays("outside"))
        for kind in given:
            vectors = read_arrays(queries_path(work, kind))["vectors"]
            arrays.update(recall.measure(subindex, vectors, efs).arrays(kind))
    write_arrays(files.join(work, "measuring", f"{own}.npz"), arrays)
    return {}


def chosen_rows(
    embeddings: Embeddings, part_rows: Sequence[int], chosen: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.float32], pa.Table]]:
    """Part by part the vectors and metadata of some rows, counted through all parts, upwards."""
    starts = np.cumsum([0, *part_rows])
    for i, name in enumerate(embeddings.part_names):
        low, high = np.searchsorted(chosen, starts[i : i + 2])
        if low < high:
            vectors, metadata = embeddings.part(name)
            rows = chosen[low:high] - starts[i]
            yield name, vectors[rows], metadata.take(pa.array(rows))


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
def local_subindex(folder: str, name: str) -> Iterator[str]:
    """The folder of a subindex's files, or a local copy of them."""
    if not files.is_url(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="protclip-index-") as local:
        for file in (graph_file(name), rows_file(name)):
            files.copy(files.join(folder, file), f"{local}/{file}")
        yield local
