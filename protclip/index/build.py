"""Build an index from embeddings, whole or as the next release of another one, in units of work.

WORK/converted, WORK/vectors          only of another tool's vectors (protclip.index.external)
WORK/plan.json                        rows of each part of the embeddings
WORK/parts, WORK/match.npz            only with a previous index (protclip.index.releases)
and what protclip.index.units leaves of each subindex.

The rows of a subindex are those of the parts in their order, but for a seeded sample that comes last: recall is
measured on it before the graph holds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from protclip import files
from protclip.embeddings.reading import Embeddings, read_embeddings
from protclip.errors import ConfigError, DataError
from protclip.index import recall, releases
from protclip.index.arrays import read_arrays
from protclip.index.config import BuildConfig, IndexConfig
from protclip.index.external import QUARANTINE_FILE, VectorFile, convert, open_vectors
from protclip.index.hnsw import SPACE, graph_bytes
from protclip.index.manifest import IndexManifest, SubindexRecord, write_index_manifest
from protclip.index.plan import plan_rows
from protclip.index.queries import background_of, check_queries, sample_queries
from protclip.index.rotation import (
    ROTATION_FILE,
    Rotation,
    fit,
    read_rotation,
    sample_rows,
    write_rotation,
)
from protclip.index.subindex import EXACT_ROWS, ROW_BYTES
from protclip.index.subindex_files import SubindexReport, num_unreached, subindex_name
from protclip.index.units import BuildItem, MeasureItem, build_subindex, load_rows, measure_subindex, sample_subindex
from protclip.manifest import FILE_NAME, describe, finish_folder, resume_folder
from protclip.occupied import occupied
from protclip.units import InProcess, Item, Report, Run, Unit, Work, run_units
from protclip.version import __version__

OWN_FILES = ("segment-*.hnsw", "segment-*.npy", "segment-*.parquet", ROTATION_FILE, QUARANTINE_FILE)
BASE_BYTES = 400 << 20


def build_index(config: BuildConfig, run: Run | None = None) -> IndexManifest:
    """Build an index; a run that was killed goes on where it was.

    Args:
        config: over what, how, and where it goes.
        run: where subindexes are built; None for this process.

    Raises:
        ConfigError, DataError, IndexMismatchError: as ``build_from``, ``read_embeddings`` and ``open_vectors``.
    """
    vectors: Embeddings | VectorFile
    if config.model is None:
        vectors = read_embeddings(config.embeddings)
    else:
        vectors = open_vectors(
            config.embeddings, config.model, ids=config.ids, max_bad_fraction=config.max_bad_fraction
        )
    return build_from(
        vectors,
        config.output,
        config.index,
        previous=config.previous,
        queries=list(map(read_embeddings, config.queries)),
        overwrite=config.overwrite,
        run=run,
    )


def build_from(
    embeddings: Embeddings | VectorFile,
    folder: str,
    config: IndexConfig,
    *,
    previous: str | None = None,
    queries: Sequence[Embeddings] = (),
    overwrite: bool = False,
    run: Run | None = None,
) -> IndexManifest:
    """Build, save and prove an index; a run that was killed goes on where it was.

    Args:
        embeddings: what is searched: all of it, with a previous index too; or a file of another tool's vectors.
        folder: path or URL; hnswlib writes to the local disk alone, so a URL's files pass through a local folder.
        config: settings; with a previous index, those of its graphs must be the same.
        previous: path or URL of the index of an earlier release: what did not change since is taken from it.
        queries: embeddings of questions, one folder a kind: recall is measured with them too, beside vectors of the
            index, and they are the background of their kind.
        overwrite: replace an index that is there.
        run: where units of work are done; None for this process.

    Raises:
        ConfigError: if it cannot be written there, the previous index was built with other settings, or two folders of
            queries are of one kind.
        DataError: for vectors that are not finite and of unit length, accessions that come twice, or damaged input.
        IndexMismatchError: if previous index, embeddings and queries are not of one model.
    """
    check_embeddings(embeddings, config)
    before = None
    if previous is not None:
        before = releases.read_previous(previous, embeddings, config.graph, config.graph_dimension)
    check_queries(queries, embeddings)
    claim = {
        "software": __version__,
        "config": dataclasses.asdict(config),
        "embeddings": embeddings.claim()
        if isinstance(embeddings, VectorFile)
        else files.sha256(files.join(embeddings.folder, FILE_NAME)),
        "previous": before and files.sha256(files.join(previous or "", FILE_NAME)),
        "queries": {asked.content: files.sha256(files.join(asked.folder, FILE_NAME)) for asked in queries},
    }
    with occupied(folder):
        if previous is not None and files.absolute(previous).rstrip("/") == files.absolute(folder).rstrip("/"):
            raise ConfigError(
                f"output {folder} is the previous index; give another folder, and remove the old one after."
            )
        work = resume_folder(folder, OWN_FILES, claim, overwrite=overwrite)
        quarantined: dict[str, int] = {}
        if isinstance(embeddings, VectorFile):
            embeddings, quarantined = convert(embeddings, folder, work)
        manifest, described = _Build(embeddings, folder, work, config, run or InProcess(threads=1)).run(
            previous, before, queries
        )
        manifest = write_index_manifest(folder, dataclasses.replace(manifest, quarantined=quarantined), described)
        finish_folder(folder)
    return manifest


def check_embeddings(embeddings: Embeddings | VectorFile, config: IndexConfig) -> None:
    """Refuse what no index is built of.

    Raises:
        ConfigError: for graphs of more numbers than a vector has.
        DataError: for hidden states.
    """
    if isinstance(embeddings, Embeddings) and embeddings.settings.get("layer") == "hidden":
        raise DataError(
            f"{embeddings.folder}: holds hidden states (--layer hidden) and no embeddings; embed without --layer."
        )
    if (config.graph_dimension or 0) > embeddings.dimension:
        raise ConfigError(
            f"index.graph_dimension={config.graph_dimension}: the vectors have {embeddings.dimension} numbers; 0 to "
            "that are allowed."
        )


def build_bytes(rows: int, dimension: int, m: int) -> int:
    """Memory of building, or measuring, a subindex, about: its vectors, the graph with them, and its rows."""
    return BASE_BYTES + rows * (4 * dimension + ROW_BYTES) + graph_bytes(rows, dimension, m)


class _Build:
    def __init__(self, embeddings: Embeddings, folder: str, work: str, config: IndexConfig, run: Run) -> None:
        self.embeddings, self.folder, self.work, self.config, self._run = embeddings, folder, work, config, run
        self.efs = recall.ladder(config.ef_search)
        self.wanted = None if config.ef_search else config.recall
        self.width = embeddings.dimension
        self._rotation: str | None = None
        self.memory_bytes = build_bytes(min(config.shard_rows, len(embeddings)), embeddings.dimension, config.graph.m)

    def run(
        self, previous: str | None, before: IndexManifest | None, queries: Sequence[Embeddings]
    ) -> tuple[IndexManifest, dict[str, Any]]:
        """All units; gives the manifest and the description of the files."""
        part_rows = plan_rows(self.embeddings, self.work)
        match = None
        if before is not None:
            match = releases.match(previous or "", before, self.embeddings, self.work, self._run)
            if match.stale > self.config.max_stale or before.is_of_rows:
                match = dataclasses.replace(match, compacted=True)
        carried: list[SubindexReport] = []
        if before is None or match is None or match.compacted:
            self.write_rotation(self.choose_rotation(part_rows))
        else:
            self.write_rotation(releases.rotation_of(previous or "", before))
            carried = releases.carry(previous or "", before, match, part_rows, self.folder, self.work, self._run)
        built = self.build(part_rows, match)
        subindexes = [*carried, *built]
        if not subindexes:
            raise DataError(f"{self.embeddings.folder}: holds no embeddings; there is nothing to search.")
        for asked in queries:
            sample_queries(asked, self.work, self.config.graph.seed)
        scores = self.measure(subindexes, [asked.content for asked in queries])
        totals = {kind: recall.merged([of_subindex[kind] for of_subindex in scores]) for kind in scores[0]}
        place = recall.choose(totals, self.efs, self.wanted)
        overall = recall.report(totals, place, len(self.efs))
        manifest = IndexManifest(
            content=self.embeddings.content,
            dimension=self.embeddings.dimension,
            space=SPACE,
            model_fingerprint=self.embeddings.model_fingerprint,
            dtype=self.embeddings.dtype,
            count=sum(subindex["live"] for subindex in subindexes),
            m=self.config.graph.m,
            ef_construction=self.config.graph.ef_construction,
            ef_search=self.efs[place],
            seed=self.config.graph.seed,
            shard_rows=self.config.shard_rows,
            wanted_recall=self.wanted,
            recall=overall,
            recall_at_10=min((kind["at_10"] for kind in overall.values()), default=None),
            recall_queries=sum(kind["queries"] for kind in overall.values()),
            segments=tuple(
                SubindexRecord(
                    name=subindex["name"],
                    rows=subindex["rows"],
                    live=subindex["live"],
                    nodes=subindex["nodes"],
                    unreached=num_unreached(subindex["found_with"], self.efs[place]),
                    delta=subindex["delta"],
                    recall=recall.report(of_subindex, place, len(self.efs)),
                )
                for subindex, of_subindex in zip(subindexes, scores, strict=True)
            ),
            release=None if match is None else match.counts(carried),
            background=background_of(totals, self.embeddings.content),
            graph_dimension=None if self._rotation is None else self.width,
        )
        described = {name: entry for subindex in subindexes for name, entry in subindex["files"].items()}
        if self._rotation is not None:
            described[ROTATION_FILE] = describe(self._rotation)
        return manifest, described

    def choose_rotation(self, part_rows: Sequence[int]) -> Rotation | None:
        """The rotation after which a graph needs few numbers of a vector; None where it holds all."""
        wanted, count = self.config.graph_dimension, sum(part_rows)
        if wanted in (0, self.embeddings.dimension) or (wanted is None and count <= EXACT_ROWS):
            return None
        path = files.join(self.work, ROTATION_FILE)
        if not files.exists(path):
            chosen = sample_rows(count, self.config.graph.seed)
            vectors_ND, hashes_N, _ = load_rows(self.embeddings, part_rows, chosen, "the sample")
            vectors_ND = vectors_ND[np.sort(np.unique(hashes_N, return_index=True)[1])]  # each once
            write_rotation(path, fit(vectors_ND, wanted, self.config.recall))
        rotation = read_rotation(path)
        return rotation if rotation is not None and rotation.width else None

    def write_rotation(self, rotation: Rotation | None) -> None:
        """Write the rotation into the index, where there is one."""
        if rotation is not None:
            self.width = rotation.width
            self._rotation = files.join(self.folder, ROTATION_FILE)
            write_rotation(self._rotation, rotation)

    def run_units(self, title: str, unit: Unit, items: Sequence[Item]) -> list[Report]:
        """The reports of units that hold a subindex."""
        work = Work(title=title, unit=unit, memory_bytes=self.memory_bytes)
        return run_units(work, items, files.join(self.work, title), self._run)

    def build(self, part_rows: Sequence[int], match: releases.Match | None) -> list[SubindexReport]:
        """The new subindexes: of all rows, or of those that a release added or changed."""
        whole = match is None or match.compacted
        count = sum(part_rows) if match is None or match.compacted else match.num_new
        first = 0 if match is None or match.compacted else match.next_subindex
        number = -(-count // self.config.shard_rows)
        items: list[BuildItem] = [
            {
                "unit": subindex_name(first + i),
                "number": first + i,
                "start": count * i // number,
                "stop": count * (i + 1) // number,
                "outside": -(-recall.NUM_QUERIES // number),
                "delta": not whole,
            }
            for i in range(number)
        ]
        unit = partial(
            build_subindex,
            embeddings=self.embeddings,
            part_rows=part_rows,
            folder=self.folder,
            work=self.work,
            graph_config=self.config.graph,
            efs=self.efs,
            enough_recall=recall.enough(self.wanted),
            rotation=self._rotation,
        )
        return cast(list[SubindexReport], self.run_units("building", unit, items))

    def measure(self, subindexes: Sequence[SubindexReport], given: Sequence[str]) -> list[dict[str, recall.Scores]]:
        """For each subindex the scores of each kind of queries."""
        total = sum(subindex["live_nodes"] for subindex in subindexes)
        sampled: list[MeasureItem] = [
            {
                "unit": subindex["name"],
                "nodes": subindex["nodes"],
                "inside": min(subindex["live_nodes"], -(-recall.NUM_QUERIES * subindex["live_nodes"] // total)),
            }
            for subindex in subindexes
        ]
        common: dict[str, Any] = {
            "folder": self.folder,
            "work": self.work,
            "dimension": self.embeddings.dimension,
            "rotation": self._rotation,
        }
        self.run_units("sampling", partial(sample_subindex, seed=self.config.graph.seed, **common), sampled)
        names = [subindex["name"] for subindex in subindexes]
        measure = partial(
            measure_subindex,
            efs=self.efs,
            enough_recall=recall.enough(self.wanted),
            names=names,
            given=given,
            **common,
        )
        self.run_units("measuring", measure, sampled)
        kinds = ["inside", "outside", *given]
        return [
            {
                kind: recall.Scores.of(arrays, kind, len(self.efs))
                for arrays in [read_arrays(files.join(self.work, "measuring", f"{subindex['name']}.npz"))]
                for kind in kinds
            }
            for subindex in subindexes
        ]
