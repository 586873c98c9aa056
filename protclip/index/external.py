"""Vectors of other tools: a file of them becomes a folder of embeddings in the work folder, and then an index.

WORK/converted/00000.json …                   what became of each part of the file: the record of a part that is written
WORK/vectors/part-00000.npy, .parquet …       an ordinary folder of embeddings, of unit vectors
WORK/vectors/manifest.json                    last
OUTPUT/quarantine.jsonl                       rows that cannot be used
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import KIND, LONG, Embeddings, metadata_of, read_embeddings
from protclip.embeddings.writing import write_part
from protclip.errors import ConfigError, DataError
from protclip.index.manifest import EXTERNAL
from protclip.index.vector_files import MAX_DIMENSION, PART_ROWS, Rows, read_rows
from protclip.inputs import Dtype
from protclip.manifest import FILE_NAME, write_manifest
from protclip.parquet import read_table
from protclip.uniprot.cells import text_or_none
from protclip.uniprot.entry import BadEntry, RefusedError

QUARANTINE_FILE = "quarantine.jsonl"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorFile:
    """A file of vectors; with the attributes of the Embeddings that it becomes."""

    folder: str
    """Path or URL of the file."""
    ids: str | None
    """Of a .npy file: the file of its ids."""
    model_fingerprint: str
    dimension: int
    max_bad_fraction: float
    """Of rows that cannot be used; beyond it nothing is built."""
    content: Literal["protein"] = "protein"
    dtype: Dtype = "float32"

    def claim(self) -> dict[str, Any]:
        """All that decides on the embeddings, as JSON values."""
        paths = [self.folder, *([] if self.ids is None else [self.ids])]
        return {"model": self.model_fingerprint, **{path: files.identity(path) for path in paths}}


def open_vectors(path: str, model: str, *, ids: str | None = None, max_bad_fraction: float = 0.1) -> VectorFile:
    """Look into a file of vectors that another tool made.

    Args:
        path: of HDF5 with a dataset for each protein, of parquet, or of .npy; a path or URL.
        model: a name for what made the vectors.
        ids: of a .npy file: the file with the id of each row, one a line.
        max_bad_fraction: share of rows that may be unusable.

    Raises:
        ConfigError: for a name that is none, ids that are missing or too many, or if h5py is not installed.
        DataError: if it is no such file, or holds no vector.
    """
    if not _NAME.fullmatch(model):
        raise ConfigError(
            f"--model {model!r:.80}: a name of 64 characters at most is needed, of letters, digits and ._/-, which "
            "starts with a letter or digit, such as prott5."
        )
    for _, rows in read_rows(path, ids):
        for vector in rows.vectors:
            if vector is not None and 0 < len(vector) <= MAX_DIMENSION:
                return VectorFile(
                    folder=path,
                    ids=ids,
                    model_fingerprint=EXTERNAL + model,
                    dimension=len(vector),
                    max_bad_fraction=max_bad_fraction,
                )
    raise DataError(
        f"{path}: holds no vector; one array of 1 to {MAX_DIMENSION:,} floats for each protein is needed, not one for "
        "each residue, as per-residue.h5 has."
    )


def convert(vectors: VectorFile, folder: str, work: str) -> tuple[Embeddings, dict[str, int]]:
    """Write the embeddings, each part once, and what cannot be used to OUTPUT/quarantine.jsonl.

    Of several rows of one id, the first that can be used stays.

    Returns:
        the embeddings; and reason → rows that cannot be used.

    Raises:
        DataError: if the file is damaged, or more than ``max_bad_fraction`` of its rows cannot be used.
    """
    target = files.join(work, "vectors")
    path = files.join(target, FILE_NAME)
    if not files.exists(path):
        records = _write_parts(vectors, files.join(work, "converted"), target)
        reasons = _gather_quarantine(vectors, records, files.join(folder, QUARANTINE_FILE))
        write_manifest(
            target,
            KIND,
            [],
            described={name: entry for record in records for name, entry in record["files"].items()},
            content=vectors.content,
            model_fingerprint=vectors.model_fingerprint,
            dimension=vectors.dimension,
            rows=sum(record["rows"] for record in records),
            quarantined_by_reason=reasons,
        )
    counts: dict[str, int] = files.read_json(path)["quarantined_by_reason"]
    return read_embeddings(target, verify=False), counts


def _write_parts(source: VectorFile, records_folder: str, target: str) -> list[dict[str, Any]]:
    """The records of all parts, each written once, one after the other: those that are done are the first."""
    names = [name for name in files.list_folder(records_folder) if name.endswith(".json")]
    records = files.in_threads(lambda name: files.read_json(files.join(records_folder, name)), names)
    seen: set[str] = set()
    for record in records:
        for name in record["files"]:
            if name.endswith(".parquet"):
                seen.update(read_table(files.join(target, name), ["accession"])["accession"].to_pylist())
    for number, rows in read_rows(source.folder, source.ids, range(len(records))):
        records.append(_write_part(rows, number, source, seen, target))
        files.write_json(files.join(records_folder, f"{number:05d}.json"), records[-1])
    return records


def _write_part(rows: Rows, number: int, source: VectorFile, seen: set[str], target: str) -> dict[str, Any]:
    """Write what can be used of some rows; gives the record of the part."""
    unit_ND, refusals = _unit_vectors(rows.vectors, source.dimension)
    ids = [_readable(name) for name in rows.ids]
    for row, name in enumerate(ids):
        if name is None:
            refusals[row] = RefusedError("no id", repr(rows.ids[row]), "an id for each row")
        elif row not in refusals:
            if name in seen:
                refusals[row] = RefusedError("repeated id", name, "an id once; its first row stays")
            seen.add(name)
    kept = np.array([row for row in range(len(ids)) if row not in refusals], np.int64)
    described: dict[str, Any] = {}
    if len(kept):
        table = rows.known.take(pa.array(kept))
        table = table.append_column("accession", pa.array([ids[row] for row in kept], pa.string()))
        table = metadata_of(table, source.folder).append_column(LONG, pa.nulls(len(kept), LONG.type))
        described = write_part(target, number, table, unit_ND[kept], form="npy", precision="float32")
    first = number * PART_ROWS + 1
    bad = [
        refused.at(source=source.folder, line=first + row, accession=ids[row]).record()
        for row, refused in sorted(refusals.items())
    ]
    return {"rows": len(kept), "files": described, "refused": bad}


def _readable(name: str | None) -> str | None:
    """An id without the blanks round it; None where it means nothing, or is no text."""
    try:
        return None if name is None else text_or_none(name.encode().decode())
    except UnicodeEncodeError:  # a line of ids that is not UTF-8
        return None


def _unit_vectors(
    vectors: Sequence[NDArray[Any] | None], dimension: int
) -> tuple[NDArray[np.float32], dict[int, RefusedError]]:
    """The vectors (rows, dimension) with length 1, and row → why it has none."""
    refusals: dict[int, RefusedError] = {}
    raw_ND = np.ones((len(vectors), dimension), np.float64)
    for row, vector in enumerate(vectors):
        if vector is None:
            refusals[row] = RefusedError("no vector", "", "an array of floats of one dimension, in this very file")
        elif len(vector) != dimension:
            refusals[row] = RefusedError(
                "another dimension", f"{len(vector)} numbers", f"{dimension}, as the first has"
            )
        else:
            raw_ND[row] = vector
    with np.errstate(over="ignore", invalid="ignore"):
        norms_N = np.linalg.norm(raw_ND, axis=1)
    for row in np.flatnonzero(~np.isfinite(norms_N)).tolist():
        refusals[row] = RefusedError("not finite", f"length {norms_N[row]}", "finite numbers")
    for row in np.flatnonzero(norms_N == 0).tolist():
        refusals[row] = RefusedError("length zero", "0", "a vector that has a direction")
    usable_N = np.isfinite(norms_N) & (norms_N > 0)
    unit_ND = np.zeros(raw_ND.shape, np.float32)
    unit_ND[usable_N] = raw_ND[usable_N] / norms_N[usable_N, None]
    return unit_ND, refusals


def _gather_quarantine(source: VectorFile, records: Sequence[Mapping[str, Any]], path: str) -> dict[str, int]:
    """Write the rows that cannot be used, where there are any, and count them by reason."""
    refused = [bad for record in records for bad in record["refused"]]
    files.remove(path)
    if not refused:
        return {}
    with files.atomic_write(path) as stream:
        stream.writelines(json.dumps(bad, sort_keys=True).encode() + b"\n" for bad in refused)
    reasons = dict(sorted(Counter(str(bad["reason"]) for bad in refused).items()))
    num_rows = len(refused) + sum(record["rows"] for record in records)
    if len(refused) > source.max_bad_fraction * num_rows:
        said = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
        raise DataError(
            f"{source.folder}: {len(refused):,} of {num_rows:,} rows cannot be used ({said}), more than "
            f"max_bad_fraction={source.max_bad_fraction}; each is listed in {path}. The first: "
            f"{BadEntry(**refused[0])}. Mend the file, or raise --max-bad-fraction."
        )
    return reasons
