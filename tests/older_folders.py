"""Folders as earlier versions left them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from protclip.index import manifest as index_manifest
from protclip.index.manifest import KIND as INDEX
from protclip.index.manifest import read_index_manifest, write_index_manifest
from protclip.manifest import describe, read_manifest, write_manifest

_NO_INDEX_KEYS = ("kind", "schema_version", "software", "digest")


def without_nodes(folder: str | Path, *columns: str) -> str:
    """A finished index, none of whose rows share a vector, as the version before nodes wrote it, and without further
    columns; gives its path."""
    path = Path(folder)
    index, names = read_index_manifest(str(path)), read_manifest(str(path), INDEX)["files"]
    assert not index.is_compact and all(one.nodes == one.rows and not one.unreached for one in index.segments)
    for name in names:
        if name.endswith(".parquet"):
            table = pq.read_table(path / name)
            (path / name).unlink()  # it may be a link to another release's
            pq.write_table(table.drop_columns(["node", "found_with", *columns]), path / name, compression="zstd")
    write_index_manifest(str(path), index, {name: describe(str(path / name)) for name in names})
    stored = json.loads((path / "manifest.json").read_text())
    for record in stored["segments"]:
        del record["nodes"], record["unreached"]
    del stored["graph_dimension"]
    stored["index_format"] = 3
    stored["digest"] = index_manifest._digest({key: stored[key] for key in stored if key not in _NO_INDEX_KEYS})
    (path / "manifest.json").write_text(json.dumps(stored))
    return str(path)


def without_genes(folder: str | Path, kind: str) -> str:
    """Take the column ``gene`` out of a finished folder of pairs, embeddings or an index; gives its path."""
    path = Path(folder)
    manifest = read_manifest(str(path), kind)
    if kind == INDEX:
        return without_nodes(path, "gene")
    tables = [name for name in manifest["files"] if name.endswith(".parquet") and name != "changes.parquet"]
    for name in tables:
        with pq.ParquetFile(path / name) as file:
            rows, table = file.metadata.row_group(0).num_rows, file.read()
        (path / name).unlink()  # it may be a link to another release's
        pq.write_table(table.drop_columns(["gene"]), path / name, row_group_size=rows, compression="zstd")
    body = {key: value for key, value in manifest.items() if key not in ("kind", "schema_version", "software", "files")}
    write_manifest(str(path), kind, list(manifest["files"]), **body)
    assert tables and read_manifest(str(path), kind, verify=True)["files"] != manifest["files"]
    return str(path)
