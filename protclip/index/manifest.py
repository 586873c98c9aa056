"""What the manifest of an index records, checked before anything of the index is trusted.

It carries a digest of itself: a manifest that was altered is refused, though it may still be JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from protclip import files
from protclip.checked import Between, Count, Sha256, Size, checked
from protclip.errors import DataError, IndexMismatchError
from protclip.index.background import check_background, percentiles
from protclip.index.hnsw import SPACE
from protclip.index.hnsw_file import MAX_M
from protclip.index.rotation import ROTATION_FILE
from protclip.index.subindex_files import subindex_files
from protclip.inputs import Dtype
from protclip.manifest import FILE_NAME, read_manifest, write_manifest

KIND = "index"
_SUBINDEX = re.compile(r"segment-\d{5,}")
FORMAT = 4
"""1 was a single graph beside a metadata.parquet; 2 did not say in which dtype the model computed; in 3 each row was a
node of the graph."""
READABLE = (3, FORMAT)

EXTERNAL = "external:"
"""Before the name of another tool's model, in place of the fingerprint of one of ours."""

Recalls = Mapping[str, Mapping[str, int | float]]
"""Kind of queries → ``queries`` (their number), ``at_10``, ``at_100``, ``lowest_at_10``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubindexRecord:
    """What the manifest says of a subindex."""

    name: str
    rows: Size
    live: Count
    """Rows that answer: the others were removed or changed by later releases."""
    delta: bool
    """Made by a release, from what it added or changed."""
    recall: Recalls
    """Of this subindex alone."""
    nodes: Size | None = None
    """Vectors, each once; None where each row has one of its own, as in indexes of earlier versions."""
    unreached: Count = 0
    """Vectors that the graph does not find with ``ef_search``, which are compared with every question."""

    @property
    def num_nodes(self) -> int:
        """Vectors in the graph."""
        return self.rows if self.nodes is None else self.nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexManifest:
    """What an index is, and how well it finds."""

    content: Literal["protein", "text"]
    """What the vectors were made from."""
    dimension: Size
    space: str
    """Always ``cosine``."""
    model_fingerprint: str
    """Of the model that made the vectors; queries must be made by the same. ``external:NAME`` for another tool's."""
    dtype: Dtype
    """In which that model computed, and computes the queries, on whatever processor."""
    count: Size
    """Rows that answer."""
    m: Annotated[int, Between(2, MAX_M)]
    ef_construction: int
    ef_search: Size
    """Of every subindex; chosen for the wanted recall, or given."""
    seed: int
    shard_rows: int
    """Rows of a subindex at most."""
    wanted_recall: float | None
    """At 10, of every kind of queries that was measured; None where ef_search was given."""
    recall: Recalls
    """Of the graphs against exact search, over all subindexes and distinct vectors; ``lowest_at_10`` is that of the
    tenth of the queries for which it is lowest. ``inside``: vectors of the index, each without itself.
    ``outside``: vectors that the graph did not hold yet. ``text``, ``protein``: queries that were given."""
    recall_at_10: float | None
    """The lowest of ``recall``; None where there is nothing to find."""
    recall_queries: int
    """How many queries it was measured on."""
    segments: tuple[SubindexRecord, ...]
    """Its subindexes; this key and the names of their files are those of the first indexes that had several."""
    release: Mapping[str, Any] | None
    """What the last release changed; None where the index was built from its embeddings alone."""
    background: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Kind of question → what the best answers of random ones score (protclip.index.background); a kind is missing
    where too few were asked, all are in an index of before there was a background."""
    graph_dimension: Size | None = None
    """Numbers of a vector that the graphs hold (protclip.index.rotation), the whole vectors being beside them in
    two bytes a number; None where graphs hold the whole vectors."""
    quarantined: Mapping[str, Count] = field(default_factory=dict)
    """Reason → rows of another tool's file of vectors that could not be used."""
    digest: Sha256 | None = None
    """Of all of the above and the files' checksums; None before it is written."""

    @property
    def is_of_rows(self) -> bool:
        """Whether each row has a vector of its own, as in indexes of earlier versions."""
        return any(subindex.nodes is None for subindex in self.segments)

    @property
    def is_compact(self) -> bool:
        """Whether the graphs hold a few numbers of each vector."""
        return self.graph_dimension is not None

    @property
    def width(self) -> int:
        """Numbers of a vector in a graph."""
        return self.graph_dimension or self.dimension

    def files_of(self, subindexes: Iterable[SubindexRecord]) -> list[str]:
        """The files of some subindexes, and what belongs to all of them."""
        names = [file for one in subindexes for file in subindex_files(one.name, is_compact=self.is_compact)]
        return [*names, ROTATION_FILE] if self.is_compact else names

    @property
    def fingerprint(self) -> str:
        """The identity of the index: its digest, or where it was never written one of what it says of itself."""
        return self.digest or _digest(dataclasses.asdict(self))

    @property
    def external_model(self) -> str | None:
        """The name of the other tool's model whose vectors these are; None where a model of ours made them."""
        name = self.model_fingerprint.removeprefix(EXTERNAL)
        return None if name == self.model_fingerprint else name

    def percentiles(
        self, scores: NDArray[np.float32], question: Literal["protein", "text"]
    ) -> NDArray[np.float64] | None:
        """How rare scores are: the share of random questions, in %, whose best answer in the whole index scores lower.

        Args:
            scores: cosines of answers, of any shape.
            question: what was asked with.

        Returns:
            from 0 to 100, of the shape of the scores; None where the index has no background of that kind.
        """
        best = self.background.get(question)
        return None if best is None else percentiles(scores, best)

    def check_model(self, fingerprint: str, where: str) -> None:
        """Refuse the queries of another model.

        Raises:
            IndexMismatchError: with both fingerprints.
        """
        if self.external_model is not None and fingerprint != self.model_fingerprint:
            raise IndexMismatchError(
                f"{where}: holds vectors of {self.external_model}, which no checkpoint of ours makes; ask it by "
                "accession or by vector, never by text or sequence."
            )
        if fingerprint != self.model_fingerprint:
            raise IndexMismatchError(
                f"{where}: was made by the model {self.model_fingerprint}, and the checkpoint given is the model "
                f"{fingerprint}. Scores between two models mean nothing: use the checkpoint that made the index, or "
                "embed and index again with this one."
            )


def write_index_manifest(
    folder: str, manifest: IndexManifest, described: Mapping[str, Mapping[str, Any]]
) -> IndexManifest:
    """Commit an index; ``described`` has what ``protclip.manifest.describe`` said of each of its files.

    Returns:
        the manifest with its digest.
    """
    body = {**dataclasses.asdict(manifest), "index_format": FORMAT}
    del body["digest"]
    digest = _digest({**body, "files": described})
    write_manifest(folder, KIND, [], described=described, digest=digest, **body)
    return dataclasses.replace(manifest, digest=digest)


def read_index_manifest(folder: str, *, verify: bool = False, names: Collection[str] | None = None) -> IndexManifest:
    """Read and check an index's manifest.

    Args:
        folder: path or URL.
        verify: compare the files' checksums too.
        names: of the files that are looked at, where a part of the index is read; None for all.

    Raises:
        DataError: if the folder is unfinished, damaged, or not an index that this software can search.
    """
    stored = read_manifest(folder, KIND, verify=verify, names=names)
    if stored.get("index_format") not in READABLE:
        raise DataError(
            f"{folder}: its index format is {stored.get('index_format')!r}, this software reads "
            f"{' and '.join(map(str, READABLE))}; make the index again from its embeddings."
        )
    names = {of.name for of in dataclasses.fields(IndexManifest)} - {"digest"} | {"index_format", "files"}
    # Of what is there: fields that came later are not in the digest of an earlier version's index.
    if stored.get("digest") != _digest({name: stored[name] for name in names if name in stored}):
        raise DataError(f"{folder}: its manifest.json was altered; restore it or make the index again.")
    where = files.join(folder, FILE_NAME)
    manifest = checked(IndexManifest, stored, where)
    check_background(manifest.background, where)
    _check_recall(manifest, where)
    subindexes = manifest.segments
    own = set(manifest.files_of(subindexes))
    if not (
        manifest.space == SPACE
        and manifest.count == sum(subindex.live for subindex in subindexes)
        and all(subindex.live <= subindex.rows and _SUBINDEX.fullmatch(subindex.name) for subindex in subindexes)
        and all(subindex.unreached <= subindex.num_nodes <= subindex.rows for subindex in subindexes)
        and len({subindex.name for subindex in subindexes}) == len(subindexes)
        and manifest.width <= manifest.dimension
        and set(stored["files"]) == own
    ):
        raise DataError(
            f"{folder}: an index of {manifest.count} {manifest.content!r} vectors of dimension {manifest.dimension} in "
            f"the space {manifest.space!r:.60} and {len(subindexes)} subindexes cannot be searched; make it again."
        )
    return manifest


def _check_recall(manifest: IndexManifest, where: str) -> None:
    """Refuse what no build measures: a server tells it, and a loaded index is compared with it.

    Raises:
        DataError: naming the file.
    """
    shares = [share for share in (manifest.recall_at_10, manifest.wanted_recall) if share is not None]
    recalls = [manifest.recall, *(subindex.recall for subindex in manifest.segments)]
    measured = [value for recall in recalls for of_kind in recall.values() for value in of_kind.values()]
    # So that NaN is none either.
    if not all(0 <= share <= 1 for share in shares) or not all(0 <= value <= 2**53 for value in measured):
        raise DataError(f"{where}: has a recall that cannot be measured. Restore the file, or make the index again.")


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
