"""What the heads of files of vectors say is compared with the files' sizes before memory is taken."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_folders import unit_vectors, write_embeddings

from protclip.embeddings.hdf5 import h5_arrays
from protclip.embeddings.reading import Embeddings, read_embeddings
from protclip.errors import DataError, IndexMismatchError
from protclip.manifest import write_manifest
from protclip.parquet import open_parquet

pytestmark = pytest.mark.unit


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Another content for one of the files, and a manifest that fits."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    body = {key: manifest[key] for key in ("content", "model_fingerprint", "dimension", "rows")}
    write_manifest(str(folder), "embeddings", sorted({*manifest["files"], name}), **body)


def npy(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((10**12, 512)), r"shape \(1000000000000, 512\), 2048000000000128 bytes in all|its head speaks of"),
        (npy((-4, 8)), "is not a .npy file|its head speaks of"),
        (npy((20, 8), "|O") + b"x" * 160, "is not a .npy file|holds object numbers, and floats are needed"),
        (npy((20, 8), "<i4") + b"x" * 640, "holds int32 numbers, and floats are needed"),
        (npy((20, 8)) + b"x" * 641, "its head speaks of float32"),
        (npy((0, 10**30)), r"shape \(0, 1000000000000000000000000000000\)"),
        (npy((0, 10**18, 10**18)), "its head speaks of float32"),
        (npy((1,) * 65) + b"x" * 4, "its head speaks of float32"),
        (b"\x93NUMPY\x01\x00\xff\xff", "is not a .npy file"),
        (b"", "is not a .npy file"),
    ],
)
def test_a_head_of_npy_that_does_not_fit_its_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = tmp_path / "e"
    write_embeddings(folder, unit_vectors(20, 8), parts=1)
    rewrite(folder, "part-00000.npy", content)
    embeddings = read_embeddings(str(folder))
    with pytest.raises(DataError, match=message):
        _ = embeddings.vectors
    with pytest.raises(DataError, match=message):
        _ = embeddings.matrices


def test_a_small_parquet_file_of_very_many_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    column = pa.array(np.zeros(3_000_000, np.int64))
    pq.write_table(pa.table({"a": column, "b": column}), path, compression="zstd")
    assert path.stat().st_size * 64 < 3_000_000
    with pytest.raises(DataError, match="its footer speaks of 3,000,000 rows"), open_parquet(str(path)):
        pass


@pytest.mark.slow
def test_equal_vectors_however_small_their_file_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    vectors = np.zeros((40_000, 512), np.float32)  # of a model that tells nothing apart
    vectors[:, 0] = 1
    write_embeddings(folder, vectors, parts=1)
    assert len(read_embeddings(str(folder)).vectors) == 40_000


def h5(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file.create_dataset("P0", data=np.zeros(8, np.float32))
        file.create_dataset("huge", shape=(10**9,), dtype="f4", chunks=(1000,))  # nothing of it is stored
        file.create_dataset("matrix", data=np.zeros((8, 8), np.float32))
        file.create_dataset("words", data=np.array([b"x"] * 8))
        file.create_group("group")
        file["outside"] = h5py.ExternalLink("/etc/passwd", "P0")
        file["soft"] = h5py.SoftLink("/P0")
        file.create_dataset("raw", shape=(8,), dtype="f4", external=[("/etc/passwd", 0, 32)])
    return str(path)


@pytest.mark.parametrize("name", ["huge", "matrix", "words", "group", "outside", "soft", "raw", "missing"])
def test_only_vectors_stored_in_the_very_h5_file_are_read(tmp_path: Path, name: str) -> None:
    path = h5(tmp_path / "x.h5")
    assert next(h5_arrays(path, ["P0"], 8)).shape == (8,)
    with pytest.raises((ValueError, KeyError)):
        list(h5_arrays(path, [name]))
    with pytest.raises(ValueError, match="dimension 9 is expected"):
        list(h5_arrays(path, ["P0"], 9))


def test_a_dimension_that_the_files_have_not_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    write_embeddings(folder, unit_vectors(20, 8), dimension=2**31 - 1)
    with pytest.raises(IndexMismatchError, match="the manifest says 2147483647"):
        _ = read_embeddings(str(folder)).vectors


def test_more_than_a_hundred_thousand_parts_keep_the_order_of_the_input() -> None:
    names = [f"part-{number:05d}.parquet" for number in (0, 9_999, 10_000, 99_999, 100_000, 100_001)]
    manifest = {"content": "protein", "dimension": 8, "model_fingerprint": "f" * 64, "rows": 6}
    assert Embeddings("folder", {**manifest, "files": {key: {} for key in names[::-1]}}).part_names == names
