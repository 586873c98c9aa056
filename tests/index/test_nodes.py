"""Rows that share a vector: the graph has it once, every other row is found, and answers list all of them."""

from __future__ import annotations

import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_folders import built_index, unit_vectors, write_embeddings
from kills import COMMAND
from older_folders import without_nodes

from protclip.embeddings.reading import read_embeddings
from protclip.errors import DataError
from protclip.index import recall, subindex
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.exact import exact_search
from protclip.index.hnsw import HnswConfig, found_with, insert, start_graph
from protclip.index.index import Index
from protclip.index.nodes import Nodes, group_equal

DIMENSION = 24


@pytest.fixture
def always_graphs(monkeypatch):
    """Small subindexes are answered by their graphs too."""
    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)
    monkeypatch.setattr(recall, "NUM_QUERIES", 100)


def with_copies(count: int, copies: int, kinds: int) -> np.ndarray:
    """Vectors of which so many rows share one of few, spread over all."""
    vectors = unit_vectors(count, DIMENSION)
    rows = np.random.default_rng(1).choice(count, copies, replace=False)
    vectors[rows] = unit_vectors(kinds, DIMENSION, seed=2)[np.arange(copies) % kinds]
    return vectors


@pytest.mark.unit
def test_rows_of_equal_vectors_are_one_node_and_a_hash_alone_decides_nothing():
    vectors = unit_vectors(6, 3)
    vectors[4] = vectors[1]
    hashes = np.array([5, 3, 9, 9, 3, 1], np.uint64)  # of rows 2 and 3 it is the same by chance
    assert group_equal(vectors, hashes).tolist() == [0, 1, 2, 3, 1, 4]


@pytest.mark.unit
def test_the_best_rows_are_those_of_the_best_nodes_and_equal_scores_go_by_accession():
    nodes = Nodes(np.array([0, 1, 1, 1, 2, 3]))
    scores, found = np.array([[0.9, 0.5, 0.5]], np.float32), np.array([[1, 0, 3]])

    def order(rows: np.ndarray) -> np.ndarray:
        return -rows  # the last row has the first accession

    assert nodes.expand(scores, found, 5, order)[1].tolist() == [[3, 2, 1, 5, 0]]
    mask = np.array([True, False, True, True, True, True])
    assert nodes.expand(scores, found, 4, order, mask)[1].tolist() == [[3, 2, 5, 0]]
    assert nodes.any_of(~mask).tolist() == [False, True, False, False]
    assert nodes.first_rows(np.array([1, 2]), mask).tolist() == [2, 4]
    assert nodes.of_rows(np.array([0, 2, 3, 5])).tolist() == [0, 1, 1, 3]


@pytest.mark.unit
@pytest.mark.parametrize("bad", [[1, 2], [0, 2], [0, 1, 0]])
def test_rows_that_do_not_stand_together_are_no_nodes(bad):
    with pytest.raises(ValueError, match="stand together"):
        Nodes(np.array(bad))


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("kinds", [1, 100])
def test_every_other_row_finds_itself_however_many_are_copies(tmp_path, share, kinds):
    count = 2_000
    vectors = with_copies(count, int(share * count), kinds)
    index = built_index(tmp_path, vectors, graph=HnswConfig(m=6, ef_construction=20))
    (part,) = index.subindexes
    assert part.graph is not None and len(part.nodes) == len(np.unique(vectors, axis=0))
    scores, rows = index.search(vectors, 1)
    assert (scores[:, 0] > 0.9999).all()
    names = [hit["accession"] for hit in index.rows(rows[:, 0])]
    first = {vector.tobytes(): f"P{row:05d}" for row, vector in reversed(list(enumerate(vectors)))}
    assert names == [first[vector.tobytes()] for vector in vectors]


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
def test_copies_are_all_listed_by_accession_and_the_others_stay_when_one_goes(tmp_path):
    vectors = with_copies(400, 60, 1)
    index = built_index(tmp_path, vectors, shard_rows=250)
    copied = unit_vectors(1, DIMENSION, seed=2)
    copies = [f"P{row:05d}" for row in np.flatnonzero((vectors == copied[0]).all(axis=1))]
    hits = index.hits(copied[0], 63)
    assert [hit["accession"] for hit in hits[:60]] == copies and hits[59]["score"] > 0.9999 > hits[60]["score"]
    assert [hit["accession"] for hit in index.hits(copied[0], 63, exact=True)[:60]] == copies
    filtered = index.hits(copied[0], 60, where="accession != " + copies[0])
    assert [hit["accession"] for hit in filtered[:59]] == copies[1:]

    kept = np.array([f"P{row:05d}" != copies[0] for row in range(400)])
    names = [f"P{row:05d}" for row in np.flatnonzero(kept)]
    embeddings = read_embeddings(write_embeddings(tmp_path / "next-e", vectors[kept], accessions=names))
    build_from(
        embeddings,
        str(tmp_path / "next"),
        IndexConfig(shard_rows=250, max_stale=1.0),
        previous=str(tmp_path / "index"),
    )
    later = Index.load(str(tmp_path / "next"))
    assert later.manifest.release is not None and not later.manifest.release["compacted"]
    assert [hit["accession"] for hit in later.hits(copied[0], 59)] == copies[1:]
    assert [hit["accession"] for hit in later.hits(copied[0], 59, exact=True)] == copies[1:]


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
def test_what_the_graph_does_not_find_is_compared_with_every_question(tmp_path):
    vectors = unit_vectors(1_000, DIMENSION)
    config = HnswConfig(m=2, ef_construction=2)
    graph = start_graph(len(vectors), DIMENSION, config)
    insert(graph, vectors)
    lost = found_with(graph, vectors, [12]) > 12
    assert 100 < lost.sum() < 900
    index = built_index(tmp_path, vectors, graph=config, ef_search=12)
    (record,) = index.manifest.segments
    assert record.unreached > 100
    scores, rows = index.search(vectors, 3)
    assert (scores[:, 0] > 0.9999).all()
    assert [hit["accession"] for hit in index.rows(rows[:, 0])] == [f"P{row:05d}" for row in range(1_000)]
    (part,) = index.subindexes
    counts = []
    for ef in (5, 12, 64, 1024):
        part.set_ef(ef)
        counts.append(len(part.unreached_U))
        assert (index.search(vectors, 1)[0] > 0.9999).all() or ef < 12
    assert counts[0] == counts[1] == record.unreached > counts[2] > counts[3] > 0  # 12 is the least that is tried
    exact_scores, exact_rows = exact_search(vectors, vectors[lost], 1)
    assert np.array_equal(exact_rows[:, 0], np.flatnonzero(lost)) and (exact_scores > 0.9999).all()


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
def test_what_the_graph_does_not_find_is_near_to_a_question_that_is_a_little_short_too(tmp_path):
    vectors = unit_vectors(1_000, DIMENSION)
    vectors[500:] = vectors[:500] + 0.02 * vectors[500:]  # each has another that is nearly the same
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = built_index(tmp_path, vectors, graph=HnswConfig(m=2, ef_construction=2), ef_search=12)
    (part,) = index.subindexes
    assert len(part.unreached_U) > 100
    found = index.search(0.9992 * part.vectors_ND[part.unreached_U], 1)[1][:, 0]
    assert np.array_equal(part.nodes.of_rows(found), part.unreached_U)


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
def test_recall_counts_a_vector_once_and_tells_that_of_the_worst_group(tmp_path):
    index = built_index(tmp_path, with_copies(3_000, 1_500, 1))
    inside = index.manifest.recall["inside"]
    (record,) = index.manifest.segments
    assert record.nodes == 1_501 and inside["queries"] == 100
    assert "lowest_at_10" not in inside  # too few for groups
    # Were a copy a neighbour, half of the questions would have found ten at once.
    assert index.manifest.background["protein"][-1] < 0.999


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
def test_an_index_of_the_version_before_nodes_answers_as_it_did_and_its_next_release_has_them(tmp_path):
    vectors = unit_vectors(300, DIMENSION)
    index = built_index(tmp_path, vectors, shard_rows=200)
    expected = index.hits_of_each(vectors[:20], 5)
    folder = tmp_path / "index"
    without_nodes(folder)
    old = Index.load(str(folder))
    assert old.manifest.is_of_rows and old.hits_of_each(vectors[:20], 5) == expected
    embeddings = read_embeddings(str(tmp_path / "embeddings"))
    later = build_from(embeddings, str(tmp_path / "next"), IndexConfig(shard_rows=200), previous=str(folder))
    assert later.release is not None and later.release["compacted"] and not later.is_of_rows


@pytest.mark.unit
@pytest.mark.parametrize("column", ["accession", "live", "vector_hash", "node", "found_with"])
def test_a_row_without_what_each_has_is_refused(tmp_path, column):
    built_index(tmp_path, unit_vectors(20, DIMENSION))
    path = tmp_path / "index" / "segment-00000.parquet"
    table = pq.read_table(path)
    place, kind = table.schema.get_field_index(column), table.schema.field(column).type
    values = pa.array([None, *table[column].to_pylist()[1:]], kind)
    pq.write_table(table.set_column(place, pa.field(column, kind), values), path)
    with pytest.raises(DataError, match=f"1 rows have no {column}; make the index again"):
        subindex.read_rows(str(path))


@pytest.mark.unit
@pytest.mark.usefixtures("always_graphs")
def test_what_many_graphs_miss_is_compared_with_some_questions_at_once(tmp_path, monkeypatch):
    vectors = unit_vectors(600, DIMENSION)
    index = built_index(tmp_path, vectors, graph=HnswConfig(m=2, ef_construction=2), ef_search=12)
    (part,) = index.subindexes
    expected = index.search(vectors, 3)
    assert len(part.unreached_U) > 60
    for at_once in (1, 7 * len(part.unreached_U)):
        monkeypatch.setattr(subindex, "SCORES_AT_ONCE", at_once)
        found = index.search(vectors, 3)
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


@pytest.mark.unit
@pytest.mark.parametrize("graph_dimension", [0, 8])
def test_where_what_may_answer_lies_far_the_graph_is_left_before_it_costs_more(tmp_path, monkeypatch, graph_dimension):
    vectors = unit_vectors(2_000, DIMENSION)
    vectors[:, 0] = 3 * (-1) ** np.arange(2_000)  # two heaps, of which one may answer
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 4)
    index = built_index(tmp_path, vectors, graph_dimension=graph_dimension, ef_search=16)
    (part,) = index.subindexes
    asked = []
    ask_graph = subindex.Subindex._ask_graph

    def counting(self, queries, k):
        asked.append(k)
        return ask_graph(self, queries, k)

    monkeypatch.setattr(subindex.Subindex, "_ask_graph", counting)
    may = np.array([int(name[1:]) % 2 == 0 for name in part.metadata["accession"].to_pylist()])
    found = part.search(vectors[1:6:2], 5, allowed=may)
    assert asked == [32, 64, 128]  # by the next, 256 answers, 1,024 vectors could be compared, and there are 1,000
    expected = part.search(vectors[1:6:2], 5, allowed=may, exact=True)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


@pytest.mark.prove
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("kinds", [1, 100])
def test_every_other_protein_finds_itself_by_the_command_line(tmp_path, share, kinds):
    """In graphs: there are more distinct vectors than are searched exactly."""
    count = round((subindex.EXACT_ROWS + 5_000) / (1 - share))
    vectors = with_copies(count, int(share * count), kinds)
    embeddings = write_embeddings(tmp_path / "e", vectors)
    run = [*COMMAND, "index", embeddings, "--output", str(tmp_path / "i")]
    subprocess.run(run, check=True, capture_output=True)
    others = np.flatnonzero(~(vectors[:, None] == unit_vectors(kinds, DIMENSION, seed=2)).all(axis=2).any(axis=1))
    names = [f"P{row:05d}" for row in others]
    asked = write_embeddings(tmp_path / "q", vectors[others], accessions=names)
    answers = tmp_path / "answers.parquet"
    run = [*COMMAND, "search", str(tmp_path / "i"), "--vectors", asked, "-k", "1", "--output", str(answers)]
    subprocess.run(run, check=True, capture_output=True)
    table = pq.read_table(answers)
    assert table["query"].to_pylist() == names == table["accession"].to_pylist()
