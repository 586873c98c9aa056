"""Write the parts of a folder of embeddings: vectors beside what is known of their rows.

    part-00000.parquet          a row each: METADATA's columns, ``long``, and the vector in ``embedding``
    part-00000.npy or .h5       the vectors instead, where that is asked for; the columns stay in part-00000.parquet
    residues-00000.parquet or .h5     the residues' own vectors, where they are asked for

An .h5 file has a dataset per accession, as UniProt publishes its embeddings. Equal rows give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.embeddings.reading import LONG, METADATA
from protclip.extras import require
from protclip.manifest import describe

Format = Literal["parquet", "h5", "npy"]
"""Where vectors are."""
Precision = Literal["float32", "float16"]
"""Of stored vectors; residues are always float16."""


def write_part(
    folder: str, number: int, rows: pa.Table, vectors_ND: np.ndarray, *, form: Format, precision: Precision
) -> dict[str, dict[str, Any]]:
    """Write one part.

    Args:
        folder: path or URL.
        number: of the part, from 0.
        rows: with METADATA's columns and LONG.
        vectors_ND: one for each row.
        form: where the vectors go.
        precision: how they are stored.

    Returns:
        Name of each file → size and checksum, as the manifest has them.
    """
    table = rows.select(METADATA.names).cast(METADATA).append_column(LONG, rows.column(LONG.name))
    stored_ND = np.ascontiguousarray(vectors_ND, dtype=precision)
    names = [f"part-{number:05d}.parquet"]
    if form == "parquet":
        table = table.append_column("embedding", _lists(stored_ND))
    elif form == "npy":
        names.append(f"part-{number:05d}.npy")
        with files.atomic_write(files.join(folder, names[-1])) as stream:
            np.save(stream, stored_ND, allow_pickle=False)
    else:
        names.append(f"part-{number:05d}.h5")
        _write_h5(files.join(folder, names[-1]), rows.column("accession").to_pylist(), stored_ND)
    with files.atomic_write(files.join(folder, names[0])) as stream:
        pq.write_table(table, stream, compression="zstd")
    return {name: describe(files.join(folder, name)) for name in names}


def write_residues(
    folder: str, number: int, accessions: Sequence[str], residues: Sequence[np.ndarray], *, form: Format
) -> dict[str, dict[str, Any]]:
    """Write the residues' vectors of one part, float16: a (residues, D) array for each accession.

    Returns:
        Name of the file → size and checksum.
    """
    name = f"residues-{number:05d}.{'h5' if form == 'h5' else 'parquet'}"
    path = files.join(folder, name)
    halves = [array_LD.astype(np.float16) for array_LD in residues]
    if form == "h5":
        _write_h5(path, accessions, halves)
    else:
        offsets = np.concatenate([[0], np.cumsum([len(array_LD) for array_LD in halves])])
        lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), _lists(np.concatenate(halves)))
        with files.atomic_write(path) as stream:
            pq.write_table(pa.table({"accession": accessions, "residues": lists}), stream, compression="zstd")
    return {name: describe(path)}


def require_h5() -> Any:
    """The module ``h5py``.

    Raises:
        ConfigError: if it is not installed.
    """
    require("h5py", extra="h5", what="HDF5")
    import h5py

    return h5py


def _lists(stored_ND: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(stored_ND.reshape(-1)), stored_ND.shape[1])


def _write_h5(path: str, accessions: Sequence[str], arrays: Sequence[np.ndarray] | np.ndarray) -> None:
    # In memory first: HDF5 seeks back in its file, which an object store cannot.
    buffer = io.BytesIO()
    with require_h5().File(buffer, "w", libver="latest", track_order=False) as file:
        for accession, array in zip(accessions, arrays, strict=True):
            file.create_dataset(accession, data=array, track_times=False)
    with files.atomic_write(path) as stream:
        stream.write(buffer.getbuffer())


def h5_arrays(path: str, accessions: Sequence[str], dimension: int | None = None) -> Iterator[np.ndarray]:
    """The datasets of such a file in the given order.

    Raises:
        KeyError, ValueError, OSError: for one that is missing, or is no vector (of the dimension) in this very file.
    """
    h5py = require_h5()
    with files.open_regular(path) as stream, h5py.File(stream, "r") as file:
        for accession in accessions:
            if (data := h5_floats(file, accession)) is None:
                raise ValueError(f"{accession} is no array of floats in this file")
            if data.ndim != 1 or data.shape[0] > data.id.get_storage_size() or dimension not in (None, data.shape[0]):
                raise ValueError(f"{accession} has shape {data.shape}, dimension {dimension} is expected")
            yield data[()]


def h5_floats(file: Any, name: str) -> Any | None:
    """The dataset of that name, if it is an array of floats in this very file: others lead to other files."""
    h5py = require_h5()
    data = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    is_ours = isinstance(data, h5py.Dataset) and not data.is_virtual and not data.external and data.dtype.kind == "f"
    return data if is_ours else None
