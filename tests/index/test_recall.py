from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from index_folders import unit_vectors

from protclip.embeddings.reading import METADATA
from protclip.index import recall, subindex
from protclip.index.filters import parse_filter
from protclip.index.hnsw import HnswConfig, insert, start_graph
from protclip.index.recall import Scores, choose, enough, joined, measure, merged, report
from protclip.index.subindex import Subindex
from protclip.index.subindex_files import rows_table, subindex_name, subindex_number

pytestmark = pytest.mark.unit
NONE = -np.inf


def scores(*lines: list[float]) -> np.ndarray:
    return np.array(lines, np.float32)


def a_subindex(count: int, m: int = 16, ef_construction: int = 200) -> Subindex:
    vectors = unit_vectors(count)
    graph = start_graph(count, 16, HnswConfig(m=m, ef_construction=ef_construction))
    insert(graph, vectors)
    columns = [pa.nulls(count, field.type) for field in METADATA]
    table = pa.table(columns, schema=METADATA).set_column(5, "length", pa.array(range(count), pa.int32()))
    accessions = pa.array([f"P{i:05d}" for i in range(count)])
    table = table.set_column(0, "accession", accessions)
    columns = np.ones(count, bool), np.zeros(count, np.uint64), np.arange(count), np.zeros(count, np.int32)
    return Subindex(vectors, rows_table(table, *columns), graph)


def test_recall_is_the_share_of_scores_that_reach_the_kth():
    exact = scores([0.9, 0.8, 0.7], [0.5, 0.4, NONE], [NONE, NONE, NONE])
    found = scores([0.9, 0.7, 0.6], [0.5, 0.4, NONE], [NONE, NONE, NONE])
    assert recall.recall(exact, found, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert recall.recall(exact, found, 1) == 1
    assert np.isnan(recall.recall(exact[2:], found[2:], 3))
    tied = scores([0.9, 0.7, 0.7])
    assert recall.recall(scores([0.9, 0.7]), tied[:, 1:], 2) == 1  # any of the equal ones will do


def test_scores_of_subindexes_merge_into_those_of_the_index():
    one = Scores(scores([0.9, 0.5]), (scores([0.9, 0.2]),))
    other = Scores(scores([0.8, 0.7]), (scores([0.7, NONE]),))
    both = merged([one, other])
    assert both.exact_QK.tolist() == scores([0.9, 0.8]).tolist()
    assert both.found_EQK[0].tolist() == scores([0.9, 0.7]).tolist()
    assert joined([one, other]).exact_QK.tolist() == scores([0.9, 0.5], [0.8, 0.7]).tolist()


def test_the_lowest_group_is_one_that_has_something_to_find():
    """Of many copies of one vector, each in a subindex of its own, none has another neighbour there."""
    exact = np.full((300, 100), 0.5, np.float32)
    exact[:60] = NONE
    found = exact.copy()
    found[-30:, 5:] = NONE
    (told,) = report({"inside": Scores(exact, (found, found))}, 0, 1).values()
    assert told["lowest_at_10"] == 0.5


def test_the_smallest_ef_with_which_every_kind_is_found_is_chosen():
    exact = scores([0.9, 0.8])
    half, whole = scores([0.9, 0.1]), exact
    kinds = {"a": Scores(exact, (half, whole, whole)), "b": Scores(exact, (half, half, whole))}
    assert choose(kinds, (1, 2, 3), 0.5) == 0
    assert choose({"a": kinds["a"]}, (1, 2, 3), 1.0) == 1
    assert choose(kinds, (1, 2, 3), 1.0) == 2
    assert choose({"a": Scores(exact, (half, half))}, (1, 2), 1.0) == 1


def test_what_may_be_chance_is_not_chosen():
    exact = scores(*[[0.9, 0.8]] * 100)
    some = scores(*[[0.9, 0.8]] * 99, [0.9, 0.1])  # .995 of them are found; of other questions it may be .989
    kinds = {"a": Scores(exact, (some, exact))}
    assert choose(kinds, (1, 2), 0.99) == 0
    assert choose(kinds, (1, 2), 0.991) == 1


def test_a_vector_of_the_index_is_no_answer_to_itself():
    part = a_subindex(300)
    own = np.array([7, 250])
    measured = measure(part, part.vectors(own), (50,), enough_recall=1, own_nodes=own)
    full = part.vectors(own) @ part.vectors_ND.T
    full[[0, 1], own] = -1
    np.testing.assert_allclose(measured.exact_QK, -np.sort(-full, axis=1)[:, :100], atol=1e-6)
    assert measured.found_EQK[0].max() < 0.999
    assert measure(part, part.vectors(own), (50,), enough_recall=1).exact_QK.max() == 1


def test_larger_ef_are_not_tried_once_a_tenth_of_what_may_be_missed_is():
    assert (enough(None), enough(0.99), enough(1.0)) == (1, pytest.approx(0.999), 1)
    part, queries = a_subindex(600), unit_vectors(50, seed=3)
    efs = (12, 24, 48, 600)
    at_10 = [
        [recall.recall(scores.exact_QK, found, 10) for found in scores.found_EQK[: len(efs)]]
        for scores in (measure(part, queries, efs, enough_recall=enough_recall) for enough_recall in (0.9, 1))
    ]
    first = next(i for i, value in enumerate(at_10[1]) if value >= 0.9)
    assert at_10[0] == at_10[1][: first + 1] + [at_10[1][first]] * (len(efs) - 1 - first)
    assert at_10[1][first] < at_10[1][-1]


def test_what_a_narrow_filter_leaves_is_searched_exactly(monkeypatch):
    monkeypatch.setattr(subindex, "EXACT_ROWS", 40)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)
    part, queries = a_subindex(600, 2, 1), unit_vectors(30, seed=3)
    for text, same in (("length < 40", True), ("length < 500", False)):
        allowed = parse_filter(text).mask(part.metadata)
        found, exact = (part.search(queries, 5, allowed=allowed, exact=how) for how in (None, True))
        assert np.array_equal(found[1], exact[1]) == same
        assert allowed[found[1]].all()


def test_numbers_of_subindexes_have_as_many_digits_as_they_need():
    names = [subindex_name(number) for number in (7, 99_999, 100_007)]
    assert names == ["segment-00007", "segment-99999", "segment-100007"]
    assert [subindex_number(name) for name in names] == [7, 99_999, 100_007]
