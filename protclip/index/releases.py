"""The next release of an index: what did not change is taken over, what did becomes a subindex of changes.

A row is the same as before where accession and vector are. Rows that are gone, or whose vector is another, are marked
as not live in the subindex that holds them; the new ones make subindexes of their own. What is known of a row always
comes from the new embeddings. The graphs stay as they are: their files are linked or copied.

WORK/parts/00000.parquet …    of each part of the embeddings: its rows without vectors, with the hash of each
WORK/match.npz                source: for each row of the old subindexes, its row in the new embeddings, or -1;
                              new: rows of the new embeddings that no old subindex has
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import METADATA, Embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError
from protclip.index.arrays import read_arrays, write_arrays
from protclip.index.external import VectorFile
from protclip.index.hnsw import HnswConfig
from protclip.index.manifest import KIND, IndexManifest, read_index_manifest
from protclip.index.nodes import Nodes
from protclip.index.rotation import ROTATION_FILE, Rotation, read_rotation
from protclip.index.subindex_files import (
    SubindexReport,
    counts_of,
    read_rows,
    rows_file,
    rows_table,
    subindex_files,
    subindex_number,
    vector_hashes,
    write_rows,
)
from protclip.manifest import describe, read_manifest
from protclip.units import Report, Run, Work, run_units

MATCH_FILE = "match.npz"
PART_BYTES = 1 << 30
"""Memory of the units here: they hold a part of the embeddings, or the rows of a subindex without its vectors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What a release changes."""

    starts: tuple[int, ...]
    """First row of each old subindex among all of them, and their number."""
    num_new: int
    changed: int
    removed: int
    stale: float
    """Share of all rows that would be dead or in subindexes of changes."""
    next_subindex: int
    compacted: bool = False
    """All is built anew."""

    def counts(self, carried: Sequence[SubindexReport]) -> dict[str, Any]:
        """What the manifest records of the release."""
        return {
            "added": self.num_new - self.changed,
            "changed": self.changed,
            "removed": self.removed,
            "redescribed": None if self.compacted else sum(subindex["redescribed"] for subindex in carried),
            "compacted": self.compacted,
        }


def read_previous(
    folder: str, embeddings: Embeddings | VectorFile, graph: HnswConfig, graph_dimension: int | None
) -> IndexManifest:
    """The verified manifest of the previous index.

    Raises:
        IndexMismatchError: if it is of another model, dtype or content than the embeddings.
        ConfigError: if its graphs were built with other settings.
    """
    manifest = read_index_manifest(folder, verify=True)
    for what, theirs, ours in (
        ("model", manifest.model_fingerprint, embeddings.model_fingerprint),
        ("dimension", manifest.dimension, embeddings.dimension),
        ("content", manifest.content, embeddings.content),
        ("dtype", manifest.dtype, embeddings.dtype),
    ):
        if theirs != ours:
            raise IndexMismatchError(
                f"{folder}: its {what} is {theirs}, that of the embeddings {embeddings.folder} is {ours}; a release "
                "keeps it. Build an index without --previous."
            )
    for name in ("m", "ef_construction", "seed"):
        if (theirs := getattr(manifest, name)) != getattr(graph, name):
            raise ConfigError(
                f"{folder}: was built with {name}={theirs}, and {name}={getattr(graph, name)} is asked for; give the "
                "same, or build without --previous."
            )
    if (
        not manifest.is_of_rows
        and graph_dimension is not None
        and (graph_dimension or manifest.dimension) != manifest.width
    ):
        raise ConfigError(
            f"{folder}: its graphs hold {manifest.width} numbers of a vector, and graph_dimension={graph_dimension} is "
            "asked for; leave it out, or build without --previous."
        )
    return manifest


def rotation_of(folder: str, manifest: IndexManifest) -> Rotation | None:
    """The rotation of the previous index, which its graphs need."""
    return read_rotation(files.join(folder, ROTATION_FILE)) if manifest.is_compact else None


def match(previous: str, before: IndexManifest, embeddings: Embeddings, work: str, run: Run) -> Match:
    """Find out what changed. Accessions and hashes of both releases are held in memory: some 60 bytes a row."""
    items: list[_PartItem] = [{"unit": f"{i:06d}", "part": name} for i, name in enumerate(embeddings.part_names)]
    unit = partial(_read_part, embeddings=embeddings, work=work)
    run_units(Work(title="comparing", unit=unit, memory_bytes=PART_BYTES), items, files.join(work, "comparing"), run)
    columns = ["accession", "vector_hash", "live"]
    olds = [read_rows(files.join(previous, rows_file(subindex.name)), columns) for subindex in before.segments]
    news = [read_rows(_part_path(work, item["unit"]), columns[:2]) for item in items]
    old, new = pa.concat_tables(olds), pa.concat_tables(news)
    live = old["live"].to_numpy()
    live_rows = np.flatnonzero(live)
    places = pc.index_in(
        new["accession"].cast(pa.large_string()),
        value_set=old["accession"].filter(old["live"]).cast(pa.large_string()).combine_chunks(),
    )
    found = pc.fill_null(places, -1).to_numpy()
    known = found >= 0
    old_rows = live_rows[found[known]]
    same = old["vector_hash"].to_numpy()[old_rows] == new["vector_hash"].to_numpy()[known]
    source = np.full(len(old), -1, np.int64)
    source[old_rows[same]] = np.flatnonzero(known)[same]
    is_new = np.ones(len(new), bool)
    is_new[source[source >= 0]] = False
    write_arrays(files.join(work, MATCH_FILE), {"source": source, "new": np.flatnonzero(is_new)})

    in_deltas = sum(subindex.live for subindex in before.segments if subindex.delta)
    num_dead = int((source < 0).sum())
    num_new = int(is_new.sum())
    changed = int(known.sum() - same.sum())
    return Match(
        starts=tuple(np.cumsum([0, *map(len, olds)]).tolist()),
        num_new=num_new,
        changed=changed,
        removed=int(live.sum() - known.sum()),
        stale=(num_dead + num_new + in_deltas) / (len(old) + num_new),
        next_subindex=1 + max(subindex_number(subindex.name) for subindex in before.segments),
    )


def carry(
    previous: str,
    before: IndexManifest,
    found: Match,
    part_rows: Sequence[int],
    folder: str,
    work: str,
    run: Run,
) -> list[SubindexReport]:
    """Take over the old subindexes in which anything is live."""
    source = read_arrays(files.join(work, MATCH_FILE))["source"]
    described = read_manifest(previous, KIND)["files"]
    items: list[_CarryItem] = [
        {
            "unit": subindex.name,
            "delta": subindex.delta,
            "start": start,
            "stop": stop,
            "unchanged": {
                name: described[name]
                for name in subindex_files(subindex.name, is_compact=before.is_compact)
                if name != rows_file(subindex.name)
            },
        }
        for subindex, start, stop in zip(before.segments, found.starts[:-1], found.starts[1:], strict=True)
        if (source[start:stop] >= 0).any()
    ]
    unit = partial(_carry, previous=previous, part_rows=part_rows, folder=folder, work=work)
    taking_over = Work(title="taking over", unit=unit, memory_bytes=PART_BYTES)
    return cast(list[SubindexReport], run_units(taking_over, items, files.join(work, "taking over"), run))


def _part_path(work: str, unit: str) -> str:
    return files.join(work, "parts", f"{unit}.parquet")


class _PartItem(TypedDict):
    unit: str
    part: str
    """Of the new embeddings."""


class _CarryItem(TypedDict):
    """A subindex that is taken over."""

    unit: str
    """Its name."""
    delta: bool
    start: int
    """Of its rows among those of the previous index."""
    stop: int
    unchanged: dict[str, dict[str, Any]]
    """The files that are taken over as they are: sizes and checksums."""


def _read_part(item: _PartItem, *, embeddings: Embeddings, work: str) -> Report:
    vectors, metadata = embeddings.part(item["part"])
    count = len(vectors)
    rows = rows_table(
        metadata, np.ones(count, bool), vector_hashes(vectors), np.arange(count), np.zeros(count, np.int32)
    )
    write_rows(_part_path(work, item["unit"]), rows)
    return {"rows": len(vectors)}


def _carry(item: _CarryItem, *, previous: str, part_rows: Sequence[int], folder: str, work: str) -> SubindexReport:
    name = item["unit"]
    source = read_arrays(files.join(work, MATCH_FILE))["source"][item["start"] : item["stop"]]
    live = source >= 0
    old = read_rows(files.join(previous, rows_file(name)))
    known, new = old.select(METADATA.names), _described(work, source[live], part_rows)
    # A dead row keeps what was known of it, a live one gets what the release says.
    takes = np.arange(len(old))
    takes[live] = len(old) + np.arange(len(new))
    metadata = pa.concat_tables([known, new]).take(pa.array(takes))
    hashes, node_R, found_with_R = (old[column].to_numpy() for column in ("vector_hash", "node", "found_with"))
    write_rows(files.join(folder, rows_file(name)), rows_table(metadata, live, hashes, node_R, found_with_R))
    nodes = Nodes(node_R)
    for file in item["unchanged"]:
        files.remove(files.join(folder, file))  # of a unit that was killed
        files.link_or_copy(files.join(previous, file), files.join(folder, file))
    entries = {file: describe(files.join(folder, file)) for file in (*item["unchanged"], rows_file(name))}
    for file, described in item["unchanged"].items():
        if entries[file] != described:
            raise DataError(f"{previous}: {file} was altered while it was copied; restore it and start again.")
    return {
        "name": name,
        "rows": len(old),
        "live": int(live.sum()),
        "nodes": len(nodes),
        "live_nodes": int(nodes.any_of(live).sum()),
        "found_with": counts_of(found_with_R[nodes.start_N1[:-1]]),
        "delta": item["delta"],
        "files": entries,
        "redescribed": _num_different(known.filter(pa.array(live)), new),
    }


def _described(work: str, rows: NDArray[np.int64], part_rows: Sequence[int]) -> pa.Table:
    """What is known of rows of the new embeddings, counted through the parts, in the given order."""
    order = np.argsort(rows)
    starts = np.cumsum([0, *part_rows])
    tables = [METADATA.empty_table()]
    for i in range(len(part_rows)):
        low, high = np.searchsorted(rows[order], starts[i : i + 2])
        if low < high:
            table = read_rows(_part_path(work, f"{i:06d}"), METADATA.names)
            tables.append(table.take(pa.array(rows[order[low:high]] - starts[i])))
    return pa.concat_tables(tables).take(pa.array(np.argsort(order)))


def _num_different(one: pa.Table, other: pa.Table) -> int:
    """Rows of which anything but the vector differs."""
    different = np.zeros(len(one), bool)
    for name in METADATA.names:
        a, b = (_joined(table[name]) for table in (one, other))
        equal = pc.if_else(pc.and_(pc.is_null(a), pc.is_null(b)), True, pc.fill_null(pc.equal(a, b), False))
        different |= ~equal.to_numpy()
    return int(different.sum())


def _joined(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column; its lists, which cannot be compared, as texts."""
    return pc.binary_join(column, ";") if pa.types.is_list(column.type) else column
