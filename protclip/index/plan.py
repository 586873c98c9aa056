"""How many rows each part of the embeddings has, of which an index is built; read once, and kept with its work."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import Embeddings, refuse_duplicates
from protclip.errors import DataError
from protclip.hashing import hash64
from protclip.parquet import read_table


def plan_rows(embeddings: Embeddings, work: str) -> list[int]:
    """Rows of each part; no accession may come twice.

    Args:
        embeddings: of which an index is built.
        work: the folder of its unfinished work, where they are kept.

    Raises:
        DataError: if one does, a row has none, or there are more or fewer rows than the manifest says.
    """
    path = files.join(work, "plan.json")
    if not files.exists(path):
        parts = [files.join(embeddings.folder, name) for name in embeddings.part_names]
        keys = files.in_threads(accession_keys, parts)
        # A number for each accession, since the accessions of all of UniProt would take 26 GB.
        sorted_N = np.sort(np.concatenate([np.empty(0, np.uint64), *keys]))
        repeated = sorted_N[1:][sorted_N[1:] == sorted_N[:-1]]
        if len(repeated):
            doubted = [
                _accessions(part).filter(pa.array(np.isin(key, repeated)))
                for part, key in zip(parts, keys, strict=True)
            ]
            refuse_duplicates(pa.chunked_array(doubted, pa.large_string()), embeddings.folder)
        if len(sorted_N) != len(embeddings):
            raise DataError(
                f"{embeddings.folder}: holds {len(sorted_N)} rows, its manifest says {len(embeddings)}; make it again."
            )
        files.write_json(path, {"part_rows": [len(key) for key in keys]})
    part_rows: list[int] = files.read_json(path)["part_rows"]
    return part_rows


def accession_keys(path: str) -> NDArray[np.uint64]:
    """A number for each accession; two have the same one hardly ever."""
    return np.array([hash64(accession) for accession in _accessions(path).to_pylist()], dtype=np.uint64)


def _accessions(path: str) -> pa.Array:
    table = read_table(path, ["accession"])
    if table.column_names != ["accession"]:
        raise DataError(f"{path}: has no column 'accession'.")
    column = table["accession"]
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} rows have no accession.")
    chunked = column.cast(pa.large_string()).combine_chunks()
    return chunked if isinstance(chunked, pa.Array) else pa.concat_arrays(chunked.chunks)
