"""Folders as versions before gene names left them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from protclip.index.manifest import KIND as INDEX
from protclip.index.manifest import read_index_manifest, write_index_manifest
from protclip.manifest import describe, read_manifest, write_manifest


def without_genes(folder: str | Path, kind: str) -> str:
    """Take the column ``gene`` out of a finished folder of pairs, embeddings or an index; gives its path."""
    path = Path(folder)
    manifest = read_manifest(str(path), kind)
    index = read_index_manifest(str(path)) if kind == INDEX else None
    tables = [name for name in manifest["files"] if name.endswith(".parquet") and name != "changes.parquet"]
    for name in tables:
        with pq.ParquetFile(path / name) as file:
            rows, table = file.metadata.row_group(0).num_rows, file.read()
        (path / name).unlink()  # it may be a link to another release's
        pq.write_table(table.drop_columns(["gene"]), path / name, row_group_size=rows, compression="zstd")
    if index is not None:
        write_index_manifest(str(path), index, {name: describe(str(path / name)) for name in manifest["files"]})
    else:
        body = {
            key: value for key, value in manifest.items() if key not in ("kind", "schema_version", "software", "files")
        }
        write_manifest(str(path), kind, list(manifest["files"]), **body)
    assert tables and read_manifest(str(path), kind, verify=True)["files"] != manifest["files"]
    return str(path)
