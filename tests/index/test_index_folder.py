from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
from index_folders import built_index, unit_vectors, write_embeddings

from protclip import files
from protclip.embeddings.reading import read_embeddings
from protclip.errors import IndexMismatchError, RequestError
from protclip.index import recall, subindex, units
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.exact import exact_search
from protclip.index.filters import parse_filter
from protclip.index.hnsw import HnswConfig
from protclip.index.index import Index

pytestmark = pytest.mark.unit


@pytest.fixture
def always_graphs(monkeypatch):
    """Small subindexes are answered by their graphs too."""
    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)


def make(tmp_path: Path, vectors: np.ndarray, *, shard_rows: int = 10_000, **graph: int) -> Index:
    return built_index(tmp_path, vectors, graph=HnswConfig(**graph), shard_rows=shard_rows, ef_search=128)


@pytest.mark.usefixtures("always_graphs")
@pytest.mark.parametrize("shard_rows", [10_000, 700])
@pytest.mark.slow
def test_the_graphs_find_what_exact_search_finds(tmp_path, shard_rows):
    vectors, queries = unit_vectors(2000, 32), unit_vectors(100, 32, seed=1)
    index = make(tmp_path, vectors, shard_rows=shard_rows)
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
    index = make(tmp_path, vectors, m=2, ef_construction=2)
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
    index = make(tmp_path, vectors, shard_rows=15)
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
    index = make(tmp_path, vectors, m=2)
    scores, _ = index.search(vectors[:3], 1000)
    assert scores.shape == (3, 30) and np.all(np.diff(scores, axis=1) <= 0)
    found = [[hit["accession"] for hit in hits] for hits in index.hits_of_each(vectors[:3], 1000)]
    assert found == [[f"P{row:05d}" for row in rows] for rows in exact_search(vectors, vectors[:3], 30)[1]]


@pytest.mark.usefixtures("always_graphs")
def test_many_equal_vectors_are_all_found_by_accession(tmp_path):
    vectors = np.repeat(unit_vectors(1), 300, axis=0)
    index = make(tmp_path, vectors, m=4, shard_rows=120)
    hits = index.hits(vectors[0], 300)
    assert [hit["accession"] for hit in hits] == [f"P{i:05d}" for i in range(300)]
    assert [hit["accession"] for hit in index.hits(vectors[0], 7, exact=True)] == [f"P{i:05d}" for i in range(7)]


def test_one_vector_is_an_index_without_a_recall(tmp_path):
    index = make(tmp_path, unit_vectors(1))
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
    index = make(tmp_path, vectors)
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


def test_a_filter_may_be_given_as_its_text(tmp_path):
    index, query = make(tmp_path, unit_vectors(40)), unit_vectors(1, seed=9)[0]
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
