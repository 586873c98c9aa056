from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from index_folders import FINGERPRINT, unit_vectors, write_embeddings

from protclip import files
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError, RequestError
from protclip.index import build, hnsw, recall, subindex, units
from protclip.index import manifest as manifest_module
from protclip.index.build import IndexConfig, build_from
from protclip.index.exact import exact_search
from protclip.index.filters import parse_filter
from protclip.index.hnsw import HnswConfig
from protclip.index.index import Index
from protclip.inputs import DTYPES

pytestmark = pytest.mark.unit


FILES = ["segment-00000.hnsw", "segment-00000.parquet"]


@pytest.fixture
def always_graphs(monkeypatch):
    """Small subindexes are answered by their graphs too."""
    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)


def make(tmp_path: Path, vectors: np.ndarray, name: str = "index", *, shard_rows: int = 10_000, **graph: int) -> str:
    folder = str(tmp_path / name)
    embeddings = read_embeddings(write_embeddings(tmp_path / f"embeddings-{name}", vectors))
    build_from(embeddings, folder, IndexConfig(graph=HnswConfig(**graph), shard_rows=shard_rows, ef_search=128))
    return folder


def edit_manifest(folder: str, **fields: object) -> None:
    path = Path(folder, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.usefixtures("always_graphs")
@pytest.mark.parametrize("shard_rows", [10_000, 700])
@pytest.mark.slow
def test_the_graphs_find_what_exact_search_finds(tmp_path, shard_rows):
    vectors, queries = unit_vectors(2000, 32), unit_vectors(100, 32, seed=1)
    index = Index.load(make(tmp_path, vectors, shard_rows=shard_rows))
    assert all(one.graph is not None for one in index.subindexes)
    assert len(index.subindexes) == -(-2000 // shard_rows)
    scores, rows = index.search(queries, 10)
    exact_scores, exact_rows = index.search(queries, 10, exact=True)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact_rows, strict=True)]) >= 0.98
    same = rows == exact_rows
    np.testing.assert_allclose(scores[same], exact_scores[same], atol=1e-5)
    expected = exact_search(vectors, queries, 10)[1]
    found = [[int(hit["accession"][1:]) for hit in hits] for hits in index.hits_of_each(queries, 10, exact=True)]
    assert np.array_equal(found, expected)


def test_a_small_subindex_is_answered_exactly_and_needs_no_graph(tmp_path):
    vectors = unit_vectors(2000, 32)
    index = Index.load(make(tmp_path, vectors, m=2, ef_construction=2))
    assert index.subindexes[0].graph is None
    queries = unit_vectors(50, 32, seed=1)
    np.testing.assert_allclose(index.search(queries, 10)[0], exact_search(vectors, queries, 10)[0], atol=1e-6)


@pytest.mark.slow
def test_the_recorded_recall_is_low_where_the_graph_is_poor(tmp_path):
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(2000, 32)))
    build_from(embeddings, str(tmp_path / "good"), IndexConfig(ef_search=128))
    poor = IndexConfig(graph=HnswConfig(m=2, ef_construction=2), ef_search=1)
    build_from(embeddings, str(tmp_path / "poor"), poor)
    good, bad = (Index.load(str(tmp_path / name)).manifest for name in ("good", "poor"))
    assert good.recall["inside"]["queries"] == 1000 and good.recall["outside"]["queries"] == 200
    assert good.recall_at_10 is not None and good.recall_at_10 > 0.97
    # Most of the poor graph's vectors are not found by it, and so are compared with each question.
    assert good.segments[0].unreached == 0 and bad.segments[0].unreached > 1000
    assert bad.recall["outside"]["at_10"] < 0.1  # by the graph alone
    assert bad.recall["inside"]["lowest_at_10"] <= bad.recall["inside"]["at_10"] < 0.9
    for kind in ("inside", "outside"):
        assert bad.segments[0].recall[kind] == bad.recall[kind]


@pytest.mark.slow
def test_the_smallest_ef_that_reaches_the_wanted_recall_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(recall, "NUM_QUERIES", 200)
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(1500, 32)))
    chosen = {}
    for wanted in (0.8, 0.99, 1.0):
        folder = str(tmp_path / str(wanted))
        chosen[wanted] = build_from(embeddings, folder, IndexConfig(recall=wanted, graph=HnswConfig(m=6)))
        assert chosen[wanted].recall_at_10 is not None and chosen[wanted].recall_at_10 >= wanted
    given = IndexConfig(ef_search=chosen[0.99].ef_search, graph=HnswConfig(m=6))
    assert build_from(embeddings, str(tmp_path / "given"), given).recall == chosen[0.99].recall
    assert chosen[0.8].ef_search < chosen[0.99].ef_search < chosen[1.0].ef_search


def test_given_queries_are_measured_as_a_kind_of_their_own(tmp_path):
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(150)))
    texts = read_embeddings(write_embeddings(tmp_path / "t", unit_vectors(80, seed=4), content="text"))
    manifest = build_from(embeddings, str(tmp_path / "i"), IndexConfig(shard_rows=60), queries=[texts])
    assert manifest.recall["text"]["queries"] == 80 and set(manifest.recall) == {"inside", "outside", "text"}
    other = read_embeddings(write_embeddings(tmp_path / "o", unit_vectors(80), fingerprint="a" * 64))
    with pytest.raises(IndexMismatchError, match="model"):
        build_from(embeddings, str(tmp_path / "j"), IndexConfig(), queries=[other])


def test_a_row_answers_with_its_own_columns(tmp_path):
    vectors = unit_vectors(40)
    index = Index.load(make(tmp_path, vectors, shard_rows=15))
    _, rows = index.search(vectors[[31, 5]], 1)
    assert index.rows(rows[:, 0]) == [
        {
            "accession": "P00031",
            "name": None,
            "organism": "Homo sapiens",
            "organism_id": 9606,
            "reviewed": False,
            "length": 131,
            "ec": ["1.1.1.1"],
            "gene": ["gP00031", "b_P00031"],
            "text": None,
        },
        index.rows(rows[1:, 0])[0],
    ]
    assert index.rows(rows[:, 0])[1]["accession"] == "P00005"


@pytest.mark.usefixtures("always_graphs")
def test_more_answers_than_vectors_gives_all_of_them_by_score(tmp_path):
    vectors = unit_vectors(30)
    index = Index.load(make(tmp_path, vectors, m=2))
    scores, _ = index.search(vectors[:3], 1000)
    assert scores.shape == (3, 30) and np.all(np.diff(scores, axis=1) <= 0)
    found = [[hit["accession"] for hit in hits] for hits in index.hits_of_each(vectors[:3], 1000)]
    assert found == [[f"P{row:05d}" for row in rows] for rows in exact_search(vectors, vectors[:3], 30)[1]]


@pytest.mark.usefixtures("always_graphs")
def test_many_equal_vectors_are_all_found_by_accession(tmp_path):
    vectors = np.repeat(unit_vectors(1), 300, axis=0)
    index = Index.load(make(tmp_path, vectors, m=4, shard_rows=120))
    hits = index.hits(vectors[0], 300)
    assert [hit["accession"] for hit in hits] == [f"P{i:05d}" for i in range(300)]
    assert [hit["accession"] for hit in index.hits(vectors[0], 7, exact=True)] == [f"P{i:05d}" for i in range(7)]


def test_one_vector_is_an_index_without_a_recall(tmp_path):
    index = Index.load(make(tmp_path, unit_vectors(1)))
    assert index.manifest.recall_at_10 is None
    assert index.search(unit_vectors(1), 10)[1].tolist() == [[0]]


@pytest.mark.slow
def test_the_same_embeddings_in_other_parts_give_the_same_files(tmp_path):
    folders = []
    for name, parts in (("one", 1), ("two", 7)):
        embeddings = read_embeddings(write_embeddings(tmp_path / f"e-{name}", unit_vectors(150), parts=parts))
        build_from(embeddings, str(tmp_path / name), IndexConfig(shard_rows=60))
        folders.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert folders[0] == folders[1] and len(folders[0]) == 7


def test_an_index_passes_through_a_url(tmp_path):
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(50)))
    build_from(embeddings, "memory://bucket/index", IndexConfig())
    assert Index.load("memory://bucket/index").hits(unit_vectors(1)[0], 1)[0]["accession"] == "P00000"


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


@pytest.mark.slow
def test_a_run_that_was_killed_at_any_write_goes_on_to_the_same_files(tmp_path, monkeypatch):
    embeddings = read_embeddings(write_embeddings(tmp_path / "e", unit_vectors(120), parts=3))
    config = IndexConfig(shard_rows=50, ef_search=20)
    build_from(embeddings, str(tmp_path / "whole"), config)
    builds = []
    monkeypatch.setattr(units, "start_graph", lambda *a, real=units.start_graph: (builds.append(1), real(*a))[1])
    writes, kills = 0, 0
    real = files.atomic_write

    @contextlib.contextmanager
    def killed(path):
        nonlocal writes, kills
        writes += 1
        with real(path) as stream:
            yield stream
        if writes % 4 == 0:
            kills += 1
            raise Killed

    monkeypatch.setattr(files, "atomic_write", killed)
    for _ in range(50):
        try:
            build_from(embeddings, str(tmp_path / "killed"), config)
            break
        except Killed:
            if Path(tmp_path / "killed" / "manifest.json").exists():
                break
    assert kills >= 3 and len(builds) < 3 + kills
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_searches_side_by_side_answer_as_one_alone(tmp_path):
    vectors = unit_vectors(500)
    index = Index.load(make(tmp_path, vectors))
    alone = [index.search(vectors[i : i + 1], 3 + i)[1] for i in range(16)]
    together: dict[int, np.ndarray] = {}

    def ask(i: int) -> None:
        together[i] = index.search(vectors[i : i + 1], 3 + i)[1]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[i], together[i]) for i in range(16))


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
    monkeypatch.setattr(build, "hash64", len)
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


def test_a_filter_may_be_given_as_its_text(tmp_path):
    index, query = Index.load(make(tmp_path, unit_vectors(40))), unit_vectors(1, seed=9)[0]
    text = "reviewed and length < 120"
    wanted = index.hits(query, 5, where=parse_filter(text))
    assert len(wanted) == 5 and all(hit["reviewed"] and hit["length"] < 120 for hit in wanted)
    assert index.hits(query, 5, where=text) == wanted
    assert index.hits_of_each(query[None], 5, where=text) == [wanted]
    assert np.array_equal(
        index.search(query[None], 5, where=text)[1], index.search(query[None], 5, where=parse_filter(text))[1]
    )
    with pytest.raises(RequestError, match="filter 'reviewd', character 1"):
        index.hits(query, 5, where="reviewd")
