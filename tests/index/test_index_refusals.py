"""What is wrong with an index folder, with embeddings, or with a question is refused with its place."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from index_folders import FINGERPRINT, built_index, unit_vectors, write_embeddings

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError
from protclip.index import hnsw, plan, units
from protclip.index import manifest as manifest_module
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.hnsw import HnswConfig
from protclip.index.index import Index
from protclip.inputs import DTYPES

pytestmark = pytest.mark.unit
FILES = ["segment-00000.hnsw", "segment-00000.parquet"]


def make(tmp_path: Path, vectors: np.ndarray) -> str:
    built_index(tmp_path, vectors, ef_search=128)
    return str(tmp_path / "index")


def edit_manifest(folder: str, **fields: object) -> None:
    path = Path(folder, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_an_error(tmp_path, name):
    folder = make(tmp_path, unit_vectors(200))
    path = Path(folder, name)
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(content), size=25):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(position) % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="SHA-256"):
            Index.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_missing_is_an_error(tmp_path, name):
    folder = make(tmp_path, unit_vectors(20))
    path = Path(folder, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="bytes"):
        Index.load(folder)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        Index.load(folder)


def test_a_folder_without_manifest_is_unfinished(tmp_path):
    folder = make(tmp_path, unit_vectors(20))
    Path(folder, "manifest.json").unlink()
    with pytest.raises(DataError, match="unfinished"):
        Index.load(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"dimension": 8},
        {"count": 19},
        {"space": "l2"},
        {"dtype": "float16"},
        {"dtype": None},
        {"index_format": 2},
        {"content": "image"},
        {"count": "20"},
        {"ef_search": 0},
        {"model_fingerprint": None},
        {"files": {}},
        {"index_format": 1},
        {"digest": None},
        {"segments": []},
    ],
)
def test_a_manifest_that_does_not_fit_its_files_is_an_error(tmp_path, fields):
    folder = make(tmp_path, unit_vectors(20))
    edit_manifest(folder, **fields)
    with pytest.raises(DataError):
        Index.load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"m": 1}, "m is 1; a whole number from 2 to 256"),
        ({"m": 10**400}, "m is 1"),
        ({"recall": {"inside": {"at_10": 10**400}}}, "recall that cannot be measured"),
        ({"recall": {"inside": {"at_10": float("nan")}}}, "recall that cannot be measured"),
        ({"recall_at_10": float("nan")}, "recall that cannot be measured"),
        ({"recall_at_10": 1.5}, "recall that cannot be measured"),
        ({"wanted_recall": float("inf")}, "recall that cannot be measured"),
    ],
)
def test_numbers_that_no_build_writes_are_an_error_under_a_digest_that_fits(tmp_path, fields, message):
    folder = make(tmp_path, unit_vectors(20))
    edit_manifest(folder, **fields)
    stored = json.loads(Path(folder, "manifest.json").read_text())
    not_signed = ("kind", "schema_version", "software", "digest")
    edit_manifest(
        folder, digest=manifest_module._digest({name: stored[name] for name in stored if name not in not_signed})
    )
    with pytest.raises(DataError, match=message):
        Index.load(folder)


def test_another_models_index_is_refused_with_both_fingerprints(tmp_path):
    folder = make(tmp_path, unit_vectors(20))
    with pytest.raises(IndexMismatchError) as caught:
        Index.load(folder, expect_fingerprint="a" * 64)
    assert FINGERPRINT in str(caught.value) and "a" * 64 in str(caught.value)
    assert len(Index.load(folder, expect_fingerprint=FINGERPRINT)) == 20


def test_an_index_has_the_dtype_of_its_embeddings_and_takes_no_other_beside_it(tmp_path):
    folders = {
        dtype: read_embeddings(write_embeddings(tmp_path / dtype, unit_vectors(20), settings={"dtype": dtype}))
        for dtype in DTYPES
    }
    for dtype, embeddings in folders.items():
        assert build_from(embeddings, str(tmp_path / f"i-{dtype}"), IndexConfig()).dtype == dtype
        assert Index.load(str(tmp_path / f"i-{dtype}")).manifest.dtype == dtype
    mixed = (folders["bfloat16"], str(tmp_path / "mixed"), IndexConfig())
    with pytest.raises(IndexMismatchError, match=r"its dtype is float32, that of the embeddings .* is bfloat16"):
        build_from(*mixed, previous=str(tmp_path / "i-float32"))
    with pytest.raises(IndexMismatchError, match=r"their dtype is float32, that of .* is bfloat16"):
        build_from(*mixed, queries=[folders["float32"]])
    assert read_embeddings(write_embeddings(tmp_path / "unsaid", unit_vectors(2))).dtype == "float32"
    with pytest.raises(DataError, match="its dtype is 'float16'; allowed are float32, bfloat16"):
        read_embeddings(write_embeddings(tmp_path / "half", unit_vectors(2), settings={"dtype": "float16"}))


def test_queries_that_the_index_cannot_answer_are_refused(tmp_path):
    index = Index.load(make(tmp_path, unit_vectors(20)))
    with pytest.raises(IndexMismatchError, match="dimension 16"):
        index.search(unit_vectors(1, 8), 1)
    with pytest.raises(DataError, match="NaN"):
        index.search(np.full((1, 16), np.nan, np.float32), 1)
    with pytest.raises(DataError, match="length"):
        index.search(np.full((1, 16), 1, np.float32), 1)
    with pytest.raises(DataError, match="k=0"):
        index.search(unit_vectors(1), 0)


def test_an_index_is_replaced_only_when_asked_and_nothing_else_ever(tmp_path):
    embeddings_folder = write_embeddings(tmp_path / "e", unit_vectors(20))
    embeddings = read_embeddings(embeddings_folder)
    folder = str(tmp_path / "index")
    build_from(embeddings, folder, IndexConfig())
    with pytest.raises(ConfigError, match="--overwrite"):
        build_from(embeddings, folder, IndexConfig())
    build_from(embeddings, folder, IndexConfig(graph=HnswConfig(seed=1)), overwrite=True)
    assert Index.load(folder).manifest.seed == 1
    with pytest.raises(ConfigError, match="holds other files"):
        build_from(embeddings, embeddings_folder, IndexConfig(), overwrite=True)


def test_a_write_that_hnswlib_loses_is_noticed_and_leaves_no_index(tmp_path, monkeypatch):
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(20)))
    folder = tmp_path / "index"

    @contextlib.contextmanager
    def nowhere(_target):
        yield "/no/such/folder/hnsw.bin"  # hnswlib saves there without an error

    monkeypatch.setattr(units, "writable_copy", nowhere)
    with pytest.raises(ConfigError, match="0 of"):
        build_from(embeddings, str(folder), IndexConfig())
    assert not (folder / "manifest.json").exists() and not list(folder.glob("*.hnsw*"))


@pytest.mark.parametrize("place", ["vector", "label", "links"])
def test_a_saved_graph_that_differs_is_noticed(tmp_path, monkeypatch, place):
    real = hnsw.os.fsync

    def damage(descriptor):
        real(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        content = bytearray(path.read_bytes())
        offset = {"vector": 96 + 4 * 33 + 3, "label": 96 + 4 * 33 + 4 * 16, "links": 96 + 6}[place]
        content[offset] ^= 0x40
        path.write_bytes(content)

    monkeypatch.setattr(hnsw.os, "fsync", damage)
    vectors = unit_vectors(20)
    graph = hnsw.start_graph(20, 16, HnswConfig())
    hnsw.insert(graph, vectors)
    with pytest.raises(ConfigError, match=r"differs|not a whole HNSW graph"):
        hnsw.save_graph(graph, vectors, str(tmp_path / "graph"))


def test_an_output_below_a_file_is_a_clear_error(tmp_path):
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(20)))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        build_from(embeddings, str(tmp_path / "file" / "index"), IndexConfig())


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3.0])
def test_a_vector_that_is_not_finite_and_unit_is_named(tmp_path, bad):
    vectors = unit_vectors(20)
    vectors[13, 2] = bad
    with pytest.raises(DataError, match="row 3"):  # of the second part
        make(tmp_path, vectors)
    assert not (tmp_path / "index" / "manifest.json").exists()


def test_an_accession_that_comes_twice_is_refused(tmp_path):
    folder = write_embeddings(tmp_path / "e", unit_vectors(3), accessions=["A", "B", "A"])
    with pytest.raises(DataError, match="'A' comes 2 times"):
        _ = read_embeddings(folder).vectors
    with pytest.raises(DataError, match="'A' comes 2 times"):
        build_from(read_embeddings(folder), str(tmp_path / "i"), IndexConfig())


def test_accessions_whose_numbers_are_equal_are_no_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "hash64", len)
    folder = write_embeddings(tmp_path / "e", unit_vectors(4), accessions=["A", "B", "CC", "D"])
    assert build_from(read_embeddings(folder), str(tmp_path / "i"), IndexConfig()).count == 4


def test_embeddings_of_several_parts_are_read_in_order(tmp_path):
    vectors = unit_vectors(11)
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", vectors, parts=3))
    assert np.array_equal(embeddings.vectors, vectors)
    assert embeddings.metadata["accession"].to_pylist() == [f"P{i:05d}" for i in range(11)]


def test_embeddings_of_no_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match="no embeddings"):
        read_embeddings(write_embeddings(tmp_path / "e", np.empty((0, 16), np.float32), parts=1))


def test_embeddings_of_another_dimension_than_their_manifest_says_are_refused(tmp_path):
    with pytest.raises(IndexMismatchError, match="dimension 16"):
        _ = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(3), dimension=8)).vectors


def test_embeddings_of_other_columns_are_refused(tmp_path):
    folder = write_embeddings(tmp_path / "e", unit_vectors(4), parts=1)
    part = Path(folder, "part-00000.parquet")
    for change in (lambda t: t.drop(["embedding"]), lambda t: t.drop(["accession"])):
        table = change(pq.read_table(part))
        with pytest.raises(DataError, match="no column"):
            other = tmp_path / f"other-{len(table.column_names)}-{'embedding' in table.column_names}"
            other.mkdir()
            pq.write_table(table, other / "part-00000.parquet")
            manifest = json.loads(Path(folder, "manifest.json").read_text())
            _rewrite(other, manifest)
            _ = read_embeddings(str(other)).vectors


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"index\.m=1"):
        HnswConfig(m=1)


def _rewrite(folder: Path, manifest: dict[str, object]) -> None:
    from protclip.manifest import write_manifest

    body = {k: manifest[k] for k in ("content", "model_fingerprint", "dimension", "rows")}
    write_manifest(str(folder), "embeddings", ["part-00000.parquet"], **body)
