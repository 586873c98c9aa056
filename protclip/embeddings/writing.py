"""Write the parts of a folder of embeddings: vectors beside what is known of their rows.

    part-00000.parquet          a row each: METADATA's columns, ``long``, and the vector in ``embedding``
    part-00000.npy or .h5       the vectors instead, where that is asked for; the columns stay in part-00000.parquet
    residues-00000.parquet or .h5     the residues' own vectors, where they are asked for

An .h5 file has a dataset per accession, as UniProt publishes its embeddings. Equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.embeddings.hdf5 import write_h5
from protclip.embeddings.reading import LONG, METADATA
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
        write_h5(files.join(folder, names[-1]), rows.column("accession").to_pylist(), stored_ND)
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
        write_h5(path, accessions, halves)
    else:
        offsets = np.concatenate([[0], np.cumsum([len(array_LD) for array_LD in halves])])
        lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), _lists(np.concatenate(halves)))
        with files.atomic_write(path) as stream:
            pq.write_table(pa.table({"accession": accessions, "residues": lists}), stream, compression="zstd")
    return {name: describe(path)}


def _lists(stored_ND: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(stored_ND.reshape(-1)), stored_ND.shape[1])
