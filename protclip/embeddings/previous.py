"""Vectors of rows that are embedded already: found by key in a folder of embeddings, of which little is in memory.

A key is an accession with the hash of its sequence, or with its text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import Embeddings
from protclip.errors import ConfigError
from protclip.hashing import hash64
from protclip.manifest import differences

KEYS_FILE, PLACES_FILE = "keys.npy", "places.npy"
_ROW_BITS = 32


def check_reusable(previous: Embeddings, fingerprint: str, content: str, settings: dict[str, object]) -> None:
    """Refuse embeddings that another model or other settings made.

    Args:
        previous: the folder.
        fingerprint: of the model now.
        content: what is embedded now.
        settings: as the manifest has them, without what does not move a vector.

    Raises:
        ConfigError: with both sides.
    """
    there = {name: previous.settings.get(name) for name in settings}
    there |= {"content": previous.content, "model_fingerprint": previous.model_fingerprint}
    here = {**settings, "content": content, "model_fingerprint": fingerprint}
    if found := differences(there, here):
        raise ConfigError(
            f"--previous {previous.folder} was made otherwise ({'; '.join(found)}); its vectors cannot stand beside "
            "new ones. Embed in the same way, or leave --previous out and embed everything."
        )


def previous_folder(work: str) -> str:
    """Where the lookup is in the work folder."""
    return files.join(work, "previous")


def write_lookup(previous: Embeddings, folder: str) -> None:
    """Write the keys of all rows, sorted, and the place of each; some 50 bytes of memory for each row."""
    keys, places = [], []
    for number in range(len(previous.part_names)):
        part_keys = row_keys(previous.columns(number, _columns(previous.content)), previous.content)
        keys.append(part_keys)
        places.append((number << _ROW_BITS) + np.arange(len(part_keys), dtype=np.int64))
    key_N, place_N = np.concatenate(keys), np.concatenate(places)
    order = np.argsort(key_N, kind="stable")
    for name, array in ((PLACES_FILE, place_N[order]), (KEYS_FILE, key_N[order])):
        with files.atomic_write(files.join(folder, name)) as stream:
            np.save(stream, array, allow_pickle=False)


def row_keys(rows: pa.Table, content: str) -> NDArray[np.uint64]:
    """A number for the key of each row; rows of one number are compared before they are taken for one."""
    columns = [rows.column(name).to_pylist() for name in _columns(content)]
    return np.array([hash64("row", *key) for key in zip(*columns, strict=True)], dtype=np.uint64)


class Lookup:
    """Vectors by key, in a folder of embeddings."""

    def __init__(self, previous: Embeddings, folder: str) -> None:
        self.previous = previous
        self._stack = contextlib.ExitStack()  # copies of what a URL holds go with this object
        arrays = []
        for name in (KEYS_FILE, PLACES_FILE):
            path = self._stack.enter_context(files.local_copy(files.join(folder, name)))
            # Mapped, so that a worker holds what it looks at; an empty file cannot be.
            arrays.append(np.load(path, mmap_mode="r" if Path(path).stat().st_size > 200 else None))
        self._key_N, self._place_N = arrays

    def find(self, rows: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which of the rows are there, and the vector of each, (rows, dimension); NaN where it is not there."""
        found = np.zeros(len(rows), dtype=bool)
        vectors_ND = np.full((len(rows), self.previous.dimension), np.nan, dtype=np.float32)
        if not len(self._key_N):
            return found, vectors_ND
        key_N = row_keys(rows, self.previous.content)
        at_N = np.minimum(np.searchsorted(self._key_N, key_N), len(self._key_N) - 1)
        candidates = np.flatnonzero(self._key_N[at_N] == key_N)
        place_C = np.asarray(self._place_N[at_N[candidates]])
        part_C, row_C = place_C >> _ROW_BITS, place_C & ((1 << _ROW_BITS) - 1)
        for number in np.unique(part_C).tolist():
            here = part_C == number
            part_ND, metadata = self.previous.part(self.previous.part_names[number])
            same = _same(rows.take(candidates[here]), metadata.take(row_C[here]), _columns(self.previous.content))
            found[candidates[here]] = same
            vectors_ND[candidates[here][same]] = part_ND[row_C[here][same]]
        return found, vectors_ND


def _columns(content: str) -> list[str]:
    return ["accession", "sequence_hash" if content == "protein" else "text"]


def _same(some: pa.Table, others: pa.Table, names: Sequence[str]) -> NDArray[np.bool_]:
    equal = [pc.fill_null(pc.equal(some[name], others[name]), False).to_numpy() for name in names]
    same: NDArray[np.bool_] = np.logical_and.reduce(equal).astype(bool)
    return same
