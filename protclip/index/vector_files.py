"""Read files of vectors that other tools wrote: HDF5, parquet, or .npy beside a list of ids.

A row is an id and a vector, as they are in the file; whether they can be used is decided later.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.hdf5 import h5_floats, require_h5
from protclip.embeddings.reading import METADATA, check_npy
from protclip.errors import ConfigError, DataError
from protclip.foreign import HEAD_BYTES
from protclip.parquet import open_parquet, valid
from protclip.terminal import printable
from protclip.uniprot.streams import open_stream, read_lines

PART_ROWS = 16_384
"""Rows that are read, and become a part, at once."""
MAX_DIMENSION = 65_536
_ID_COLUMNS = ("accession", "id")
_KNOWN = tuple(name for name in METADATA.names if name not in ("accession", "sequence_hash"))
_MARKS = ((b"\x89HDF\r\n\x1a\n", "h5"), (b"PAR1", "parquet"), (b"\x93NUMPY", "npy"))
"""First bytes of each format; its name does not count."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a file."""

    ids: Sequence[str | None]
    vectors: Sequence[NDArray[Any] | None]
    """Arrays of floats, of one dimension; None where the file has none."""
    known: pa.Table
    """The same rows of those columns of METADATA that the file has."""


def format_of(path: str) -> str:
    """``h5``, ``parquet`` or ``npy``, by the first bytes.

    Raises:
        DataError: for a folder, or a file of another kind.
    """
    if files.is_folder(path):
        raise DataError(f"{path}: is a folder; a file of vectors is needed: HDF5, parquet or .npy.")
    with files.open_regular(path) as stream:
        head = stream.read(HEAD_BYTES)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    raise DataError(f"{path}: is no file of vectors; HDF5, parquet and .npy are read.")


def read_rows(path: str, ids: str | None, done: Container[int] = ()) -> Iterator[tuple[int, Rows]]:
    """The parts of a file, PART_ROWS rows each, with their numbers; what a URL holds is copied to this machine first.

    Args:
        path: path or URL.
        ids: of a .npy file: the file with the id of each row, one a line.
        done: numbers of parts to leave out.

    Raises:
        ConfigError: if ids are missing, or are given for another format, or h5py is not installed.
        DataError: if the file is damaged, or has not what is needed.
    """
    kind = format_of(path)
    if (ids is None) == (kind == "npy"):
        raise ConfigError(
            f"{path}: a .npy file has no ids; give them by --ids FILE, one a line in the order of its rows."
            if ids is None
            else f"--ids {ids}: {path} has ids of its own; leave --ids out."
        )
    with files.local_copy(path) as local:
        if ids is not None:
            yield from _npy_rows(path, local, ids, done)
        elif kind == "h5":
            yield from _h5_rows(path, local, done)
        else:
            yield from _parquet_rows(path, local, done)


def load_npy(path: str, local: str) -> NDArray[Any]:
    """The vectors of a .npy file, (rows, D), which are read when they are used.

    Args:
        path: for messages.
        local: the file, or its copy on this machine.

    Raises:
        DataError: if it is no such file, or holds something else.
    """
    check_npy(local)
    vectors_ND: NDArray[Any] = np.load(local, mmap_mode="r", allow_pickle=False)
    if vectors_ND.ndim != 2:
        raise DataError(f"{path}: has the shape {vectors_ND.shape}; one vector a row is needed, (rows, dimension).")
    return vectors_ND


def _h5_rows(path: str, local: str, done: Container[int]) -> Iterator[tuple[int, Rows]]:
    h5py = require_h5()
    try:
        with files.open_regular(local) as stream, h5py.File(stream, "r") as file:
            names = list(file)
            for number, start in enumerate(range(0, len(names), PART_ROWS)):
                if number not in done:
                    chosen = names[start : start + PART_ROWS]
                    ids = [name if isinstance(name, str) else None for name in chosen]  # bytes: not UTF-8
                    vectors = [None if name is None else _h5_vector(file, name) for name in ids]
                    yield number, Rows(ids, vectors, _nothing_known(len(ids)))
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: is not a whole HDF5 file ({error}); restore it or get it again.") from error


def _h5_vector(file: Any, name: str) -> NDArray[Any] | None:
    data = h5_floats(file, name)
    # Looked at before it is read: a file of some bytes may speak of 10^12 numbers.
    if data is None or data.ndim != 1 or data.shape[0] > MAX_DIMENSION:
        return None
    vector: NDArray[Any] = data[()]
    return vector


def _npy_rows(path: str, local: str, ids: str, done: Container[int]) -> Iterator[tuple[int, Rows]]:
    vectors_ND = load_npy(path, local)
    with open_stream(ids) as stream:
        lines = [line.decode(errors="surrogateescape") for _, line in read_lines(stream, ids, "a file of ids")]
    if len(lines) != len(vectors_ND):
        raise DataError(f"{ids}: has {len(lines):,} lines, and {path} {len(vectors_ND):,} rows; an id a row is needed.")
    for number, start in enumerate(range(0, len(lines), PART_ROWS)):
        if number not in done:
            chosen = lines[start : start + PART_ROWS]
            some_ND = np.asarray(vectors_ND[start : start + PART_ROWS])
            yield number, Rows(chosen, list(some_ND), _nothing_known(len(chosen)))


def _parquet_rows(path: str, local: str, done: Container[int]) -> Iterator[tuple[int, Rows]]:
    with open_parquet(local) as file:
        schema = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        shown = printable(", ".join(file.schema_arrow.names))
        if len(schema) < len(file.schema_arrow.names):
            raise DataError(f"{path}: has two columns of one name; columns are {shown}.")
        key = next((name for name in _ID_COLUMNS if name in schema), None)
        if key is None:
            raise DataError(f"{path}: has no column {' or '.join(_ID_COLUMNS)}; columns are {shown}.")
        lists = [name for name, kind in schema.items() if _is_vector(kind)]
        vectors = "embedding" if "embedding" in lists else lists[0] if len(lists) == 1 else None
        if vectors is None:
            raise DataError(
                f"{path}: has {len(lists)} columns of lists of floats; one, or one named embedding, is needed. Columns "
                f"are {shown}."
            )
        known = [name for name in _KNOWN if name in schema]
        batches = file.iter_batches(PART_ROWS, columns=[key, vectors, *known])
        for number, batch in enumerate(batches):
            if number not in done:
                table = valid(pa.Table.from_batches([batch]))
                names = table[key].cast(pa.string()).to_pylist()
                yield (
                    number,
                    Rows(names, _arrays(table[vectors]), table.select(known) if known else _nothing_known(len(table))),
                )


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _arrays(column: pa.ChunkedArray) -> list[NDArray[Any] | None]:
    """A view for each row; numbers that are null are NaN."""
    arrays: list[NDArray[Any] | None] = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)  # without the rows that are null
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        pieces = np.split(values, np.cumsum(lengths)[:-1])
        arrays += [piece if there else None for piece, there in zip(pieces, chunk.is_valid().to_pylist(), strict=True)]
    return arrays


def _nothing_known(count: int) -> pa.Table:
    return pa.table({"name": pa.nulls(count, pa.string())})
