"""Indexes of vectors that other tools made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from index_folders import FINGERPRINT, unit_vectors, write_embeddings

from protclip import files
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError
from protclip.index import vector_files
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.external import open_vectors
from protclip.index.index import Index
from protclip.index.manifest import IndexManifest
from ray_jobs.index.main import main

pytestmark = pytest.mark.unit
CONFIG = IndexConfig(shard_rows=100, ef_search=20, max_stale=1.0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(vector_files, "PART_ROWS", 40)
    monkeypatch.setattr("protclip.index.external.PART_ROWS", 40)


def names(count: int) -> list[str]:
    return [f"P{i:05d}" for i in range(count)]


def write_h5(path: Path, vectors: Any, ids: list[str] | None = None) -> str:
    with h5py.File(path, "w") as file:
        for name, vector in zip(ids or names(len(vectors)), vectors, strict=True):
            file.create_dataset(name, data=vector)
    return str(path)


def write_parquet(path: Path, vectors: np.ndarray, kind: str = "fixed", **columns: Any) -> str:
    flat = pa.array(vectors.ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    lists = {"fixed": fixed, "list": fixed.cast(pa.list_(flat.type)), "large": fixed.cast(pa.large_list(flat.type))}
    pq.write_table(pa.table({"accession": names(len(vectors)), "embedding": lists[kind], **columns}), path)
    return str(path)


def write_npy(path: Path, vectors: np.ndarray) -> tuple[str, str]:
    np.save(path, vectors)
    ids = path.with_suffix(".txt")
    ids.write_text("".join(f"{name}\n" for name in names(len(vectors))))
    return str(path), str(ids)


def build(folder: Path, path: str, model: str = "prott5", **how: Any) -> IndexManifest:
    previous = how.pop("previous", None)
    return build_from(open_vectors(path, model, **how), str(folder), CONFIG, previous=previous)


def bad_rows(folder: Path) -> list[tuple[int, str | None, str]]:
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return [(bad["line"], bad["accession"], bad["reason"]) for bad in map(json.loads, lines)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("form", ["h5", "fixed", "list", "large", "npy"])
def test_each_format_gives_the_index_of_the_same_vectors_at_unit_length(tmp_path, form, dtype):
    raw = (unit_vectors(130, 12) * np.linspace(0.2, 30, 130)[:, None]).astype(dtype)
    ids = None
    if form == "npy":
        path, ids = write_npy(tmp_path / "v.npy", raw)
    elif form == "h5":
        path = write_h5(tmp_path / "v.h5", raw)
    else:
        path = write_parquet(tmp_path / "v.parquet", raw, form)
    manifest = build(tmp_path / "i", path, ids=ids)
    assert manifest.external_model == "prott5" and manifest.model_fingerprint == "external:prott5"
    assert (manifest.dtype, manifest.content, manifest.count, manifest.quarantined) == ("float32", "protein", 130, {})
    assert len(manifest.segments) == 2 and len(manifest.background["protein"]) == 130
    index = Index.load(str(tmp_path / "i"))
    wide = raw.astype(np.float64)
    unit = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    hits = index.hits_of_each(unit, 1, exact=True)
    assert [hit["accession"] for (hit,) in hits] == names(130)
    assert min(hit["score"] for (hit,) in hits) > 1 - 1e-6
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == [
        "manifest.json", *(f"segment-0000{i}.{end}" for i in (0, 1) for end in ("hnsw", "parquet"))
    ]  # fmt: skip


def test_columns_that_an_answer_shows_are_taken_where_a_parquet_file_has_them(tmp_path):
    vectors = unit_vectors(3)
    columns = {
        "name": ["Globin", None, "Lysozyme"], "length": [10, 20, 30], "reviewed": [True, False, None],
        "ec": [["1.1.1.1"], [], None], "sequence_hash": ["other", "than", "ours"], "date": [1, 2, 3],
    }  # fmt: skip
    build(tmp_path / "i", write_parquet(tmp_path / "v.parquet", vectors, **columns))
    first, _, last = (Index.load(str(tmp_path / "i")).hits(vector, 1)[0] for vector in vectors)
    shown = {"accession": "P00000", "name": "Globin", "organism": None, "length": 10, "reviewed": True, "text": None}
    assert shown.items() <= first.items() and first["ec"] == ["1.1.1.1"]
    assert last["name"] == "Lysozyme" and last["reviewed"] is None and last["ec"] is None
    odd = write_parquet(tmp_path / "odd.parquet", vectors, length=["ten", "20", "30"])
    with pytest.raises(DataError, match=r"odd.parquet: column 'length' is string, not int32"):
        build(tmp_path / "j", odd)


def test_rows_that_cannot_be_used_are_listed_with_the_reason_and_counted(tmp_path):
    vectors: list[Any] = list(unit_vectors(100, 8))
    ids = names(100)
    vectors[3] = np.zeros(8, np.float32)
    vectors[50] = np.full(8, np.nan, np.float32)
    vectors[51] = np.full(8, 1e200)
    vectors[52] = np.ones(9, np.float32)
    vectors[53] = None
    vectors[99] = np.array([1, 2, 3, 4, 5, 6, 7, np.inf])
    ids[60], ids[61], ids[80] = "", None, "P00001"  # type: ignore[call-overload]
    ids[54] = "P00053"  # whose first row has no vector
    table = pa.table({"id": ids, "v": pa.array([None if v is None else v.tolist() for v in vectors])})
    pq.write_table(table, tmp_path / "v.parquet")
    manifest = build(tmp_path / "i", str(tmp_path / "v.parquet"))
    assert bad_rows(tmp_path / "i") == [
        (4, "P00003", "length zero"), (51, "P00050", "not finite"), (52, "P00051", "not finite"),
        (53, "P00052", "another dimension"), (54, "P00053", "no vector"), (61, None, "no id"), (62, None, "no id"),
        (81, "P00001", "repeated id"), (100, "P00099", "not finite"),
    ]  # fmt: skip
    assert manifest.quarantined == {
        "another dimension": 1, "length zero": 1, "no id": 2, "no vector": 1, "not finite": 3, "repeated id": 1
    }  # fmt: skip
    index = Index.load(str(tmp_path / "i"))
    assert len(index) == 91 and index.manifest.quarantined == manifest.quarantined
    for row, name in ((1, "P00001"), (54, "P00053"), (98, "P00098")):
        assert index.hits(vectors[row], 1)[0]["accession"] == name


def test_too_many_rows_that_cannot_be_used_stop_the_build(tmp_path):
    vectors = unit_vectors(50)
    vectors[:6] = 0
    path = write_h5(tmp_path / "v.h5", vectors)
    with pytest.raises(DataError, match=r"6 of 50 rows cannot be used \(length zero: 6\).*0\.1.*P00000.*--max-bad"):
        build(tmp_path / "i", path)
    assert len(bad_rows(tmp_path / "i")) == 6 and not (tmp_path / "i" / "manifest.json").exists()
    assert build(tmp_path / "i", path, max_bad_fraction=0.2).count == 44


def test_what_is_no_vector_in_an_h5_file_is_one_bad_row(tmp_path):
    write_h5(tmp_path / "other.h5", unit_vectors(1), ["A"])
    path = write_h5(tmp_path / "v.h5", unit_vectors(60))
    with h5py.File(path, "a") as file:
        file["Q-integers"] = np.arange(16)
        file["Q-matrix"] = unit_vectors(4)
        file["Q-scalar"] = np.float32(1)
        file.create_group("Q-group")
        file["Q-link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "A")
        file.create_dataset("Q-huge", shape=(10**12,), dtype="f4", chunks=(1024,))
        file[b"\xff\xfe-Q"] = unit_vectors(1)[0]
    manifest = build(tmp_path / "i", path, max_bad_fraction=0.5)
    assert manifest.quarantined == {"no id": 1, "no vector": 6} and manifest.count == 60


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "head": lambda content: content[:40] + bytes(200) + content[240:],
    "no end": lambda content: content[:-1],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", ["h5", "parquet", "npy"])
def test_a_damaged_file_is_one_clear_error(tmp_path, form, damage):
    path = tmp_path / f"v.{form}"
    ids = None
    if form == "npy":
        _, ids = write_npy(path, unit_vectors(50))
    else:
        {"h5": write_h5, "parquet": write_parquet}[form](path, unit_vectors(50))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DataError, match=rf"v\.{form}"):
        build(tmp_path / "i", str(path), ids=ids, max_bad_fraction=0.0)


@pytest.mark.slow
def test_flipped_bytes_of_an_h5_file_are_an_error_or_other_vectors_but_no_traceback(tmp_path):
    whole = Path(write_h5(tmp_path / "v.h5", unit_vectors(50))).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(60):
        content = bytearray(whole)
        for place in rng.integers(len(content), size=20):
            content[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "v.h5").write_bytes(content)
        with contextlib.suppress(DataError):
            build(tmp_path / f"i{i}", str(tmp_path / "v.h5"))


def test_what_is_no_file_of_vectors_is_one_clear_error(tmp_path):
    vectors = unit_vectors(50)
    (tmp_path / "v.fasta").write_text(">A\nMK\n")
    npy, ids = write_npy(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "flat.npy", vectors.ravel())
    np.save(tmp_path / "integers.npy", np.arange(50)[:, None])
    h5 = write_h5(tmp_path / "v.h5", vectors)
    residues = write_h5(tmp_path / "per-residue.h5", [unit_vectors(5), unit_vectors(7)])
    (tmp_path / "short.txt").write_text("A\nB\n")
    columns = {"accession": names(50), "a": vectors.tolist(), "b": vectors.tolist()}
    for drop in ("accession", "none", "vectors"):
        there = {name: values for name, values in columns.items() if name != drop and (drop != "vectors" or name > "b")}
        pq.write_table(pa.table(there or {"id": ["A"], "c": [1]}), tmp_path / f"{drop}.parquet")
    embeddings = write_embeddings(tmp_path / "e", vectors)
    cases: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        (str(tmp_path / "v.fasta"), {}, DataError, "is no file of vectors; HDF5, parquet and .npy are read"),
        (str(tmp_path / "missing.h5"), {}, DataError, "missing.h5: cannot be read"),
        (embeddings, {}, DataError, "is a folder; a file of vectors is needed"),
        (npy, {}, ConfigError, "has no ids; give them by --ids FILE"),
        (h5, {"ids": ids}, ConfigError, "has ids of its own; leave --ids out"),
        (npy, {"ids": str(tmp_path / "short.txt")}, DataError, r"short.txt: has 2 lines, and .*v.npy 50 rows"),
        (str(tmp_path / "flat.npy"), {"ids": ids}, DataError, r"has the shape \(800,\)"),
        (str(tmp_path / "integers.npy"), {"ids": ids}, DataError, "holds int64 numbers, and floats are needed"),
        (residues, {}, DataError, r"holds no vector; .* not one for each residue, as per-residue.h5 has"),
        (str(tmp_path / "accession.parquet"), {}, DataError, "has no column accession or id; columns are a, b"),
        (
            str(tmp_path / "none.parquet"),
            {},
            DataError,
            "has 2 columns of lists of floats; one, or one named embedding",
        ),
        (str(tmp_path / "vectors.parquet"), {}, DataError, "has 0 columns of lists of floats"),
    ]
    for path, how, error, message in cases:
        with pytest.raises(error, match=message):
            build(tmp_path / "i", path, **how)
    for name in ("", "a b", "../x", "x" * 65, "é", "a:b"):
        with pytest.raises(ConfigError, match=r"--model .*such as prott5"):
            build(tmp_path / "i", h5, name)
    assert not (tmp_path / "i").exists()


def test_h5py_that_is_missing_is_said_with_the_way_to_it(tmp_path, monkeypatch):
    path = write_h5(tmp_path / "v.h5", unit_vectors(5))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"needs the package h5py, .* pip install -e '\.\[h5\]'"):
        build(tmp_path / "i", path)


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


@pytest.mark.slow
def test_a_run_that_was_killed_at_any_write_goes_on_and_commits_each_part_once(tmp_path, monkeypatch):
    vectors = unit_vectors(130)
    vectors[[5, 70]] = 0
    columns = {"accession": names(130), "v": vectors.tolist()}
    columns["accession"][100] = "P00002"  # a repeat of a part that was written before the kill
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    build(tmp_path / "whole", str(tmp_path / "v.parquet"))
    real, writes, parts = files.atomic_write, 0, []

    @contextlib.contextmanager
    def killed(path):
        nonlocal writes
        writes += 1
        with real(path) as stream:
            yield stream
        if "/converted/" in path:
            parts.append(path[-10:])
        if writes % 5 == 0:
            raise Killed

    monkeypatch.setattr(files, "atomic_write", killed)
    kills = 0
    while not (tmp_path / "killed" / "manifest.json").exists() and kills < 40:
        try:
            build(tmp_path / "killed", str(tmp_path / "v.parquet"))
        except Killed:
            kills += 1
    assert kills >= 4 and parts == [f"{i:05d}.json" for i in range(4)]
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("killed", "whole")
    )
    assert one == two and json.loads(one["manifest.json"])["quarantined"] == {"length zero": 2, "repeated id": 1}


@pytest.mark.slow
def test_the_next_release_of_the_same_tool_follows_and_of_another_is_refused(tmp_path):
    vectors = unit_vectors(100)
    build(tmp_path / "i0", write_h5(tmp_path / "v0.h5", vectors))
    second = write_h5(tmp_path / "v1.h5", np.concatenate([vectors[5:], unit_vectors(2, seed=1)]), names(102)[5:])
    manifest = build(tmp_path / "i1", second, previous=str(tmp_path / "i0"))
    assert manifest.release == {"added": 2, "changed": 0, "removed": 5, "redescribed": 0, "compacted": False}
    assert manifest.external_model == "prott5" and manifest.count == 97
    with pytest.raises(IndexMismatchError, match=r"its model is external:prott5, that of .* is external:esm2"):
        build(tmp_path / "i2", second, "esm2", previous=str(tmp_path / "i0"))
    ours = read_embeddings(write_embeddings(tmp_path / "e", vectors))
    with pytest.raises(IndexMismatchError, match=rf"its model is external:prott5, that of .* is {FINGERPRINT}"):
        build_from(ours, str(tmp_path / "i3"), CONFIG, previous=str(tmp_path / "i0"))


def test_a_checkpoint_of_ours_cannot_ask_another_tools_index(tmp_path):
    build(tmp_path / "i", write_h5(tmp_path / "v.h5", unit_vectors(30)))
    with pytest.raises(IndexMismatchError, match=r"vectors of prott5, .* by accession or by vector, never by text"):
        Index.load(str(tmp_path / "i"), expect_fingerprint=FINGERPRINT)
    assert len(Index.load(str(tmp_path / "i"))) == 30


def test_vectors_are_taken_from_a_url(tmp_path):
    write_h5(tmp_path / "v.h5", unit_vectors(50))
    files.copy(tmp_path / "v.h5", "memory://external/v.h5")
    assert build(tmp_path / "i", "memory://external/v.h5").count == 50
    assert build("memory://external/index", "memory://external/v.h5").count == 50  # type: ignore[arg-type]
    assert len(Index.load("memory://external/index")) == 50


def test_the_command_takes_the_file_and_says_what_it_could_not_use(tmp_path):
    vectors = unit_vectors(60)
    vectors[7] = 0
    path = write_h5(tmp_path / "per-protein.h5", vectors)
    output = str(tmp_path / "i")
    result = CliRunner().invoke(main, [path, "--model", "prott5", "--output", output])
    assert result.exit_code == 0, result.exception
    assert f"rows that cannot be used, listed in {output}/quarantine.jsonl: length zero: 1" in result.output
    assert "59 protein vectors of dimension 16" in result.output
    result = CliRunner().invoke(main, [path, "--output", output, "--overwrite"])
    assert isinstance(result.exception, DataError) and "index takes those with --model NAME" in str(result.exception)
    result = CliRunner().invoke(main, [path, "--output", output, "--ids", "ids.txt"])
    assert isinstance(result.exception, ConfigError) and "name its model by --model" in str(result.exception)
