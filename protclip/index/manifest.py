"""What the manifest of an index records, checked before anything of the index is trusted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from protclip.errors import CheckpointError, DataError, IndexMismatchError
from protclip.index.embeddings import CONTENTS
from protclip.index.hnsw import SPACE
from protclip.manifest import read_manifest

KIND = "index"
GRAPH_FILE = "hnsw.bin"
METADATA_FILE = "metadata.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexManifest:
    """What an index is, and how well it finds."""

    content: Literal["protein", "text"]
    """What the vectors were made from."""
    dimension: int
    space: str
    """Always ``cosine``."""
    model_fingerprint: str
    """Of the model that made the vectors; queries must be made by the same."""
    count: int
    """Vectors in the index."""
    m: int
    ef_construction: int
    ef_search: int
    seed: int
    recall_at_10: float | None
    """Against exact search; the queries are vectors of the index, each without itself. None for a single vector."""
    recall_queries: int
    """How many vectors it was measured on."""

    def check_model(self, fingerprint: str, where: str) -> None:
        """Refuse the queries of another model.

        Raises:
            IndexMismatchError: with both fingerprints.
        """
        if fingerprint != self.model_fingerprint:
            raise IndexMismatchError(
                f"{where}: was made by the model {self.model_fingerprint}, and the checkpoint given is the model "
                f"{fingerprint}. Scores between two models mean nothing: use the checkpoint that made the index, or "
                "embed and index again with this one."
            )


def read_index_manifest(folder: str, *, verify: bool = False) -> IndexManifest:
    """Read and check an index's manifest; ``verify`` compares the files' checksums too.

    Raises:
        DataError: if the folder is unfinished, damaged, or not an index that this software can search.
    """
    manifest = read_manifest(folder, KIND, verify=verify)
    missing = {GRAPH_FILE, METADATA_FILE} - set(manifest["files"])
    if missing:
        raise DataError(f"{folder}: its manifest does not list {', '.join(sorted(missing))}; make the index again.")
    values = {field.name: _value(manifest, field, folder) for field in dataclasses.fields(IndexManifest)}
    found = IndexManifest(**values)
    if found.space != SPACE or found.content not in CONTENTS or min(found.count, found.dimension, found.ef_search) < 1:
        raise DataError(
            f"{folder}: an index of {found.count} {found.content!r} vectors of dimension {found.dimension} in the "
            f"space {found.space!r} cannot be searched; make the index again."
        )
    return found


def read_checkpoint_fingerprint(folder: str, *, verify: bool = False) -> str:
    """The fingerprint of a checkpoint's model, without loading the model; ``verify`` compares checksums too.

    Raises:
        CheckpointError: if the folder is unfinished or not a checkpoint.
    """
    fingerprint = read_manifest(folder, "checkpoint", verify=verify, error=CheckpointError).get("fingerprint")
    if not isinstance(fingerprint, str):
        raise CheckpointError(f"{folder}: its manifest names no model fingerprint; save the checkpoint again.")
    return fingerprint


def _value(manifest: dict[str, Any], field: dataclasses.Field[Any], folder: str) -> Any:
    value = manifest.get(field.name)
    # Annotations are strings here; what is neither "int" nor "float | None" is text.
    types = {"int": (int,), "float | None": (float, int, type(None))}.get(str(field.type), (str,))
    if not isinstance(value, types) or isinstance(value, bool):
        raise DataError(f"{folder}: its manifest has {field.name}={value!r}, not a value of type {field.type}.")
    return value
