"""Read a folder of embeddings: vectors, and the columns that an answer shows.

Vectors are a column of a part's parquet file, or stand beside it in a file of the same stem, .npy or .h5.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from tokenize import TokenError
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.checked import Count, Size, checked
from protclip.embeddings.hdf5 import h5_arrays
from protclip.errors import DataError, IndexMismatchError
from protclip.inputs import DTYPES, Dtype
from protclip.manifest import FILE_NAME, read_manifest
from protclip.parquet import read_table
from protclip.terminal import printable

KIND = "embeddings"
Content = Literal["protein", "text"]
"""What vectors were made from."""
CONTENTS: tuple[Content, ...] = get_args(Content)

METADATA = pa.schema(
    [
        pa.field("accession", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("organism", pa.string()),
        pa.field("organism_id", pa.int32()),
        pa.field("reviewed", pa.bool_()),
        pa.field("length", pa.int32()),
        pa.field("ec", pa.list_(pa.string())),
        pa.field("gene", pa.list_(pa.string())),
        pa.field("text", pa.string()),
        pa.field("sequence_hash", pa.uint64()),
    ]
)
"""What is known of a row beside its vector.

``text`` is the embedded text, where texts were embedded; ``sequence_hash`` the hash of the protein's whole sequence.
"""


_MAX_AXES = 32
"""Of an array in a .npy file: what every numpy takes."""
LONG = pa.field("long", pa.string())
"""Column of a part: the policy by which a protein longer than the model sees was embedded; null for all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What the manifest of a folder of embeddings has to hold."""

    dimension: Size
    model_fingerprint: str
    rows: Count
    settings: dict[str, Any] | None = None


class Embeddings:
    """A finished folder of embeddings, read part by part, or whole where it fits into memory."""

    def __init__(self, folder: str, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.content: Content = manifest["content"]
        """What was embedded."""
        self.dimension = int(manifest["dimension"])
        self.model_fingerprint: str = manifest["model_fingerprint"]
        """Of the model that made them."""
        names = [name for name in manifest["files"] if name.startswith("part-") and name.endswith(".parquet")]
        self.part_names = sorted(names, key=lambda name: (len(name), name))  # numbers have five digits or more
        self.settings: Mapping[str, Any] = manifest.get("settings") or {}
        """How they were made; see ``protclip embed``."""
        self.dtype: Dtype = self.settings.get("dtype", "float32")
        """In which the model computed; queries are to be made in the same."""
        self._files = frozenset(manifest["files"])
        self._num_rows = int(manifest["rows"])

    def __len__(self) -> int:
        return self._num_rows

    def part(self, name: str) -> tuple[NDArray[np.float32], pa.Table]:
        """One part (of ``part_names``): vectors (rows, dimension), and the same rows of the schema METADATA.

        Raises:
            DataError: if it is damaged, lacks a column, or a vector is missing.
            IndexMismatchError: if its vectors are of another dimension than the manifest says.
        """
        return read_part(self.folder, name, self._files, self.dimension)[:2]

    def columns(self, number: int, names: list[str]) -> pa.Table:
        """Some columns of METADATA of a part, by its place in ``part_names``."""
        path = files.join(self.folder, self.part_names[number])
        return metadata_of(read_table(path, names), path).select(names)

    def parts(self) -> Iterator[tuple[NDArray[np.float32], pa.Table]]:
        """What ``part`` gives of one after the other, in the memory of one: the whole, streamed."""
        return map(self.part, self.part_names)

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """The accession of each row, (rows,), as Python strings."""
        paths = [files.join(self.folder, name) for name in self.part_names]
        columns = [_column(read_table(path, ["accession"]), "accession", path).cast(pa.string()) for path in paths]
        ids: NDArray[np.object_] = pa.chunked_array(
            [chunk for c in columns for chunk in c.chunks], pa.string()
        ).to_numpy()
        return ids

    @cached_property
    def matrices(self) -> list[NDArray[np.float32] | NDArray[np.float16]]:
        """The vectors of each part as stored, (rows, dimension), memory-mapped; for ``--format npy`` on this machine.

        Raises:
            DataError: for a folder of another format, or one that a URL names.
        """
        paths = [files.join(self.folder, f"{name.removesuffix('.parquet')}.npy") for name in self.part_names]
        if files.is_url(self.folder) or not all(files.exists(path) for path in paths):
            raise DataError(
                f"{self.folder}: only .npy files on this machine can be memory-mapped; embed with --format npy, copy "
                "them here, or go through parts()."
            )
        for path in paths:
            check_npy(path)
        return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """All of them, (rows, dimension), as stored."""
        return self._whole[0]

    @cached_property
    def metadata(self) -> pa.Table:
        """The same rows, with the schema METADATA."""
        return self._whole[1]

    @cached_property
    def _whole(self) -> tuple[NDArray[np.float32], pa.Table]:
        parts = [self.part(name) for name in self.part_names]
        num_rows = sum(len(vectors) for vectors, _ in parts)
        if num_rows != len(self):
            raise DataError(f"{self.folder}: holds {num_rows} rows, its manifest says {len(self)}; make it again.")
        metadata = pa.concat_tables([metadata for _, metadata in parts]).combine_chunks()
        refuse_duplicates(metadata["accession"], self.folder)
        return np.concatenate([vectors for vectors, _ in parts]), metadata


def read_embeddings(folder: str, *, verify: bool = True) -> Embeddings:
    """Open a folder of embeddings; its parts are read in the order of their names.

    Args:
        folder: path or URL.
        verify: compare every file's SHA-256, which reads all of them once, not its presence and size alone.

    Raises:
        DataError: if the folder is unfinished, damaged or empty.
    """
    manifest = read_manifest(folder, KIND, verify=verify)
    if manifest.get("content") not in CONTENTS:
        raise DataError(f"{folder}: content is {manifest.get('content')!r:.60}; allowed are {', '.join(CONTENTS)}.")
    record = checked(_Record, manifest, files.join(folder, FILE_NAME))
    if (dtype := (record.settings or {}).get("dtype", "float32")) not in DTYPES:
        raise DataError(f"{folder}: its dtype is {dtype!r:.60}; allowed are {', '.join(DTYPES)}.")
    if not record.rows:
        raise DataError(f"{folder}: holds no embeddings; there is nothing to search.")
    return Embeddings(folder, manifest)


def read_part(
    folder: str, name: str, names: Collection[str], dimension: int | None = None
) -> tuple[NDArray[np.float32], pa.Table, list[str | None]]:
    """One part of a folder that may still be unfinished.

    Args:
        folder: path or URL.
        name: of the part.
        names: the files of the folder.
        dimension: of the vectors; None takes it as it is.

    Returns:
        What ``Embeddings.part`` gives, and the column LONG.

    Raises:
        DataError, IndexMismatchError: as ``Embeddings.part``.
    """
    path, stem = files.join(folder, name), name.removesuffix(".parquet")
    table = read_table(path)
    metadata = metadata_of(table, path)
    long = table[LONG.name].to_pylist() if LONG.name in table.column_names else [None] * len(table)
    if f"{stem}.npy" in names:
        vectors_ND = _read_npy(files.join(folder, f"{stem}.npy"), len(table), dimension)
    elif f"{stem}.h5" in names:
        vectors_ND = _read_h5(files.join(folder, f"{stem}.h5"), metadata["accession"], dimension)
    else:
        vectors_ND = _vectors(_column(table, "embedding", path), dimension, path)
    return vectors_ND, metadata, long


def _read_npy(path: str, num_rows: int, dimension: int | None) -> NDArray[np.float32]:
    check_npy(path)
    with files.open_regular(path) as stream:
        vectors_ND = np.load(stream, allow_pickle=False)
    return _checked_shape(vectors_ND, num_rows, dimension, path)


def check_npy(path: str, *, kind: str = "f") -> None:
    """Compare what the head of a .npy file says with the file's size, before memory is reserved for it.

    Args:
        path: of the file.
        kind: numpy's letter of what it must hold: ``f`` for floats, ``V`` for records.

    Raises:
        DataError: if it is no such file, of other numbers, or has another size.
    """
    with files.open_regular(path) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        except (ValueError, OSError, SyntaxError, TokenError) as error:  # numpy reads the head as Python
            raise DataError(f"{path}: is not a .npy file ({error}).") from error
        needed = stream.tell() + dtype.itemsize * math.prod(shape)
        # numpy counts with them even where one of them is 0.
        too_large = dtype.itemsize * math.prod(length or 1 for length in shape) > sys.maxsize
        found = stream.seek(0, os.SEEK_END)
    if dtype.kind != kind or dtype.hasobject:
        wanted = "floats are needed, such as array.astype('float32') gives"
        wanted = wanted if kind == "f" else "records of numbers are needed"
        raise DataError(f"{path}: holds {dtype} numbers, and {wanted}.")
    if min(shape, default=0) < 0 or len(shape) > _MAX_AXES or too_large or needed != found:
        raise DataError(
            f"{path}: its head speaks of {dtype} numbers of shape {shape}, {needed:,} bytes in all, and the file has "
            f"{found:,}; it is damaged. Restore it or make the embeddings again."
        )


def _read_h5(path: str, accessions: pa.ChunkedArray, dimension: int | None) -> NDArray[np.float32]:
    try:
        arrays = list(h5_arrays(path, accessions.to_pylist(), dimension))
        vectors_ND = np.stack(arrays) if arrays else np.empty((0, dimension or 0))
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: has not the rows of the parquet file beside it ({error}).") from error
    return _checked_shape(vectors_ND, len(accessions), dimension, path)


def _checked_shape(vectors_ND: NDArray[Any], num_rows: int, dimension: int | None, path: str) -> NDArray[np.float32]:
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] != (dimension or vectors_ND.shape[1]):
        raise IndexMismatchError(
            f"{path}: holds vectors of shape {vectors_ND.shape}, the manifest says dimension {dimension}; the folder "
            "mixes models. Make the embeddings again."
        )
    if len(vectors_ND) != num_rows:
        raise DataError(f"{path}: holds {len(vectors_ND)} vectors for {num_rows} rows; make the embeddings again.")
    return vectors_ND.astype(np.float32, copy=False)


def _vectors(column: pa.ChunkedArray, dimension: int | None, path: str) -> NDArray[np.float32]:
    if not pa.types.is_fixed_size_list(column.type) or not pa.types.is_floating(column.type.value_type):
        raise DataError(f"{path}: column 'embedding' is {column.type}; a fixed-size list of floats is needed.")
    dimension = dimension or column.type.list_size
    if column.type.list_size != dimension:
        raise IndexMismatchError(
            f"{path}: holds vectors of dimension {column.type.list_size}, the manifest says {dimension}; "
            "the folder mixes models. Make the embeddings again."
        )
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} rows have no embedding; make the embeddings again.")
    empty = pa.array([], column.type.value_type)
    values: Any = pa.concat_arrays([empty, *(chunk.flatten() for chunk in column.chunks)])
    if values.null_count:
        raise DataError(f"{path}: {values.null_count} numbers inside embeddings are null; make them again.")
    return values.to_numpy().astype(np.float32, copy=False).reshape(-1, dimension)  # type: ignore[no-any-return]


def metadata_of(table: pa.Table, path: str) -> pa.Table:
    """The columns of METADATA; those that a table does not have are null.

    Raises:
        DataError: naming the path, if one is of another type, or there is no accession.
    """
    columns = []
    for field in METADATA:
        if field.name not in table.column_names and field.nullable:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = _column(table, field.name, path)
        if column.null_count and not field.nullable:
            raise DataError(f"{path}: {column.null_count} rows have no {field.name}.")
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{path}: column {field.name!r} is {column.type}, not {field.type} ({error}).") from error
    return pa.table(columns, schema=METADATA)


def _column(table: pa.Table, name: str, path: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(f"{path}: has no column {name!r}; columns are {printable(', '.join(table.column_names))}.")
    return table[name]


def refuse_duplicates(accessions: pa.ChunkedArray, folder: str) -> None:
    """An accession is the key of a row.

    Raises:
        DataError: naming one that comes more than once.
    """
    if pc.count_distinct(accessions).as_py() == len(accessions):
        return
    counts = accessions.value_counts()
    item = counts.filter(pc.greater(counts.field("counts"), 1))[0]
    raise DataError(
        f"{folder}: {item['values'].as_py()!r} comes {item['counts'].as_py()} times; an accession is the key of a "
        "row and may come once. Remove the others from the input and embed it again."
    )
