"""The pairs that a checkpoint was trained on, where they still are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from protclip import files
from protclip.checkpoints import checkpoint_folder
from protclip.errors import ProtclipError
from protclip.manifest import FILE_NAME, read_manifest
from protclip.model.record import KIND
from protclip.protanno.shards import Pairs, read_pairs, read_row_group


def pairs_of(checkpoint: str, *others: str | None) -> Pairs | None:
    """The pairs of a checkpoint, by its record of their path and fingerprint; None where they are gone, or other ones.

    Args:
        checkpoint: folder, name or URL.
        others: folders that may be these pairs too, such as where they were moved to.
    """
    manifest = read_manifest(checkpoint_folder(checkpoint), KIND)
    run: Any = manifest.get("run") or {}
    fingerprint = (manifest.get("data") or {}).get("fingerprint")
    for folder in ((run.get("data") or {}).get("pairs"), *others):
        if not folder or not files.exists(files.join(folder, FILE_NAME)):
            continue
        try:
            pairs = read_pairs(folder)
        except ProtclipError:  # another kind of folder by now
            continue
        if pairs.fingerprint == fingerprint:
            return pairs
    return None


def training_sequences(pairs: Pairs) -> Iterator[str]:
    """Those of the training split, one row group in memory."""
    for group in pairs.row_groups("train"):
        yield from read_row_group(group, columns=["sequence"]).column("sequence").to_pylist()
