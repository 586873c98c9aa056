"""Lin's similarity and the average of best matches: by hand, by brute force, and on the real ontology."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from benchmark_files import entry_text, write_annotated
from hypothesis import strategies as st

from protclip.errors import DataError
from protclip.evaluation.annotated import read_similarity
from protclip.evaluation.go_similarity import (
    ROOTS,
    ancestors,
    best_match_averages,
    information_content,
    lin_similarities,
)
from protclip.evaluation.readers.ontology import Term, read_obo

pytestmark = pytest.mark.unit

ROOT = ROOTS["molecular_function"]
#        root 64
#        /     \
#      a 16    b 8
#      /  \    /
#    c 4    d 2        d is an a and a b
COUNTS = {ROOT: 64, "a": 16, "b": 8, "c": 4, "d": 2}
PARENTS: dict[str, list[str]] = {ROOT: [], "a": [ROOT], "b": [ROOT], "c": ["a"], "d": ["a", "b"], "e": ["d"]}
TERMS = {name: Term(namespace="molecular_function", parents=parents) for name, parents in PARENTS.items()}


def test_ancestors_are_all_that_a_term_is() -> None:
    assert ancestors(TERMS, "d") == {"d", "a", "b", ROOT}
    assert ancestors(TERMS, ROOT) == {ROOT}


def test_information_content_by_hand() -> None:
    expected = {ROOT: 0, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6}  # bits; nothing is annotated with e: as if one were
    for name, bits in expected.items():
        assert information_content(COUNTS, name, ROOT) == pytest.approx(bits * math.log(2), abs=1e-12)
    with pytest.raises(DataError, match="the counts of annotations have none of the root"):
        information_content({}, "a", ROOT)


def test_lin_by_hand() -> None:
    found = lin_similarities(TERMS, COUNTS, ["a", "b", "c", "d", ROOT])
    expected = [
        [1, 0, 2 * 2 / (2 + 4), 2 * 2 / (2 + 5), 0],
        [0, 1, 0, 2 * 3 / (3 + 5), 0],
        [2 * 2 / (2 + 4), 0, 1, 2 * 2 / (4 + 5), 0],
        [2 * 2 / (2 + 5), 2 * 3 / (3 + 5), 2 * 2 / (4 + 5), 1, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_best_match_average_by_hand() -> None:
    similar = np.array([[1, 0.2, 0.6], [0.2, 1, 0.4], [0.6, 0.4, 1]], np.float32)
    # {0, 1} and {2}: 0 and 1 find 0.6 and 0.4, 2 finds 0.6.
    found = best_match_averages(similar, [[0, 1], [2]])
    np.testing.assert_allclose(found, [[1, 1.6 / 3], [1.6 / 3, 1]], atol=1e-6)


@st.composite
def _ontologies(draw: st.DrawFn) -> tuple[dict[str, Term], dict[str, int]]:
    """Ontologies whose terms have one or two earlier ones above them, and counts that do not grow downwards."""
    names = [ROOT, *(f"t{place}" for place in range(draw(st.integers(2, 10))))]
    terms = {ROOT: Term(namespace="molecular_function")}
    counts = {ROOT: 1000}
    for place, name in enumerate(names[1:], start=1):
        parents = sorted(draw(st.sets(st.sampled_from(names[:place]), min_size=1, max_size=2)))
        terms[name] = Term(namespace="molecular_function", parents=parents)
        counts[name] = draw(st.integers(0, min(counts[parent] for parent in parents)))
    return terms, counts


@hypothesis.given(_ontologies(), st.data())
def test_similarities_are_those_of_brute_force(
    ontology: tuple[dict[str, Term], dict[str, int]], data: st.DataObject
) -> None:
    terms, counts = ontology
    names = list(terms)
    content = {name: information_content(counts, name, ROOT) for name in names}

    def lin(a: str, b: str) -> float:
        common = max(content[name] for name in ancestors(terms, a) & ancestors(terms, b))
        both = content[a] + content[b]
        return 2 * common / both if both else 0.0

    similar = lin_similarities(terms, counts, names)
    np.testing.assert_allclose(similar, [[lin(a, b) for b in names] for a in names], atol=1e-5)
    some = st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=4, unique=True)
    terms_of = data.draw(st.lists(some, min_size=2, max_size=5))
    expected = [
        [
            (sum(max(similar[a, b] for b in q) for a in p) + sum(max(similar[a, b] for a in p) for b in q))
            / (len(p) + len(q))
            for q in terms_of
        ]
        for p in terms_of
    ]
    np.testing.assert_allclose(best_match_averages(similar, terms_of), expected, atol=1e-5)


def test_one_annotated_protein_makes_no_pair(tmp_path: Path) -> None:
    write_annotated(tmp_path / "go_semantic", 0, num_entries=1)
    with pytest.raises(DataError, match="1 protein has terms of molecular_function; a pair needs two"):
        read_similarity(str(tmp_path), "molecular_function")


def test_electronic_terms_and_second_entries_of_a_sequence_are_left_out(tmp_path: Path) -> None:
    write_annotated(tmp_path / "go_semantic", 0, num_entries=0)
    link = "DR   GO; GO:0000001; F:some term; {}:UniProtKB."
    entries = [
        entry_text("P00001", "MKV", [link.format("IDA")]),
        entry_text("P00002", "MKV", [link.format("IDA")]),
        entry_text("P00003", "MKVA", [link.format("IEA")]),
        entry_text("P00004", "MKVC", [link.format("TAS")]),
    ]
    (tmp_path / "go_semantic/entries.dat").write_text("".join(entries))
    found = read_similarity(str(tmp_path), "molecular_function")
    assert sorted(found.ids) == ["P00001", "P00004"]
    assert found.splits["test"].labels.tolist() == [1]


def test_counts_that_are_none_are_refused(tmp_path: Path) -> None:
    write_annotated(tmp_path / "go_semantic", 0)
    (tmp_path / "go_semantic/frequency_counts_uniprot.json").write_text(json.dumps({ROOT: "many"}))
    with pytest.raises(DataError, match="must be one JSON object with a whole number for each term"):
        read_similarity(str(tmp_path), "molecular_function")


@pytest.mark.slow
def test_real_counts_do_not_grow_downwards(real_data: Path) -> None:
    """Else the information content of an ancestor would be more than a term's own, and Lin's similarity above 1."""
    folder = real_data / "benchmarks/go_semantic"
    terms, _ = read_obo(str(folder / "go-basic.obo.gz"))
    counts = json.loads(gzip.decompress((folder / "frequency_counts_uniprot.json.gz").read_bytes()))
    assert len(terms) > 40_000
    grown = [
        name for name, term in terms.items() for parent in term.parents if counts.get(name, 0) > counts.get(parent, 0)
    ]
    assert grown == []
