"""Vectors in HDF5 files: a dataset per accession, as UniProt publishes its embeddings."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from protclip import files
from protclip.extras import require


def require_h5() -> Any:
    """The module ``h5py``.

    Raises:
        ConfigError: if it is not installed.
    """
    require("h5py", extra="h5", what="HDF5")
    import h5py

    return h5py


def write_h5(path: str, accessions: Sequence[str], arrays: Sequence[np.ndarray] | np.ndarray) -> None:
    """Write a file with one array for each accession."""
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
