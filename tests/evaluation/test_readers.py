"""Readers of the published formats: what is in a file, and what is wrong with it."""

from __future__ import annotations

import gzip
import os
import pickle
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import lmdb
import numpy as np
import pytest
from benchmark_files import entry_text, term_stanza, write_records
from hypothesis import strategies as st

from protclip.errors import ConfigError, DataError, MissingDataError
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.lmdb_files import read_lmdb
from protclip.evaluation.readers.numbers import class_number, number
from protclip.evaluation.readers.ontology import read_go_links, read_obo
from protclip.evaluation.readers.pickled import read_pickled
from protclip.evaluation.readers.records import read_records
from protclip.evaluation.readers.tables import read_columns, read_rows

pytestmark = pytest.mark.unit

TAPE_RECORD = {
    "primary": "MKV",
    "protein_length": 3,
    "log_fluorescence": np.array([1.5], np.float32),
    "num_mutations": np.int64(4),
    "score": np.float64(2.5),
    "id": b"17",
    "valid": True,
    "none": None,
    "pair": (1, -2.5, [2**40, -(2**33)]),
    "matrix": np.arange(6, dtype=">i4").reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3)),
}


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == expected.dtype and np.array_equal(found, expected)
    return bool(found == expected) and isinstance(
        found, type(expected) if not isinstance(expected, np.generic) else object
    )


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickled_record_is_read_as_unpickling_would(protocol: int) -> None:
    found = read_pickled(pickle.dumps(TAPE_RECORD, protocol=protocol), "a record")
    assert found.keys() == TAPE_RECORD.keys()
    assert all(_same(found[key], value) for key, value in TAPE_RECORD.items())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@hypothesis.given(_VALUES, st.sampled_from([2, 3, 4]))
def test_plain_values_are_read_as_unpickling_would(value: Any, protocol: int) -> None:
    assert read_pickled(pickle.dumps(value, protocol=protocol), "a value") == value


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused_and_does_not(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"primary": _Runs(tmp_path / "made")}, protocol=protocol)
    with pytest.raises(DataError, match="a record: is no pickle of dicts, lists"):
        read_pickled(data, "a record")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "value",
    [{"a"}, object, len, np.array([object()]), np.array(["a"]), np.dtype("f4"), np.random.default_rng, slice(1)],
    ids=["set", "class", "function", "objects", "texts", "type", "random", "slice"],
)
def test_what_is_no_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="is no pickle of dicts"):
        read_pickled(pickle.dumps({"primary": value}, protocol=4), "a record")


def test_a_record_that_would_fill_the_memory_is_refused() -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(DataError, match="more than 65,536 values"):
        read_pickled(pickle.dumps(value, protocol=4), "a record")
    value.append(value)
    with pytest.raises(DataError, match="is no pickle"):
        read_pickled(pickle.dumps(value, protocol=4), "a record")


@hypothesis.given(st.data())
def test_a_damaged_pickle_is_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(TAPE_RECORD, protocol=4))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickled(bytes(whole[: data.draw(st.integers(0, len(whole)))]), "a record")
    except DataError as error:
        assert "a record" in str(error)


def test_opcodes_that_are_known_are_those_of_pickles() -> None:
    from protclip.evaluation.readers.pickled import _LITERALS, _MAKERS

    assert _LITERALS | set(_MAKERS) <= {opcode.name for opcode in pickletools.opcodes}


def test_records_of_lmdb_are_read_in_order(tmp_path: Path) -> None:
    records = [{"primary": "MKV" * (place + 1), "label": place} for place in range(12)]
    write_records(tmp_path / "a.lmdb", [pickle.dumps(record) for record in records])
    path = str(tmp_path / "a.lmdb/data.mdb")
    assert [value for _, value in read_lmdb(path)] == records
    found = list(read_records(path, ["sequence", "primary"], ["label"]))
    assert found[10] == (f"{path}, record 10", ("MKV" * 11, 10))
    assert sorted(os.listdir(tmp_path / "a.lmdb")) == ["data.mdb", "lock.mdb"]  # of who wrote it


def test_an_lmdb_that_lacks_records_is_refused(tmp_path: Path) -> None:
    record = pickle.dumps({"primary": "MKV"})
    write_records(tmp_path / "few", [record], count=2)
    with pytest.raises(DataError, match="has no record '1'"):
        list(read_lmdb(str(tmp_path / "few/data.mdb")))
    write_records(tmp_path / "none", [record], count=0)
    with pytest.raises(DataError, match="says that it holds 0 records"):
        list(read_lmdb(str(tmp_path / "none/data.mdb")))
    (tmp_path / "empty").mkdir()
    with lmdb.open(str(tmp_path / "empty")):
        pass
    with pytest.raises(DataError, match="has no record 'num_examples'"):
        list(read_lmdb(str(tmp_path / "empty/data.mdb")))


def test_an_lmdb_that_was_cut_short_is_refused_before_it_ends_the_process(tmp_path: Path) -> None:
    write_records(tmp_path / "a", [pickle.dumps({"primary": "MKV" * 3000}) for _ in range(20)])
    path = tmp_path / "a/data.mdb"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match="it was cut short"):
        list(read_lmdb(str(path)))
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="is no LMDB file, or damaged"):
        list(read_lmdb(str(path)))


def test_without_lmdb_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "lmdb")
    with pytest.raises(ConfigError, match=r"reading LMDB files needs the package lmdb.*\[lmdb\]"):
        list(read_lmdb(str(tmp_path / "data.mdb")))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_are_found_by_any_of_their_names(tmp_path: Path, packed: bool, end: str) -> None:
    text = end.join(['\ufeffseq,"a, b",target', '"M\nK",x,1', "", 'MK,"y ""z""",2', ""])
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = list(read_columns(str(path), ["label", "target"], ["seq"], ["a, b"]))
    assert found == [(3, ("1", "M\nK", "x")), (5, ("2", "MK", 'y "z"'))]


def test_a_table_with_tabs_is_cut_at_them_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('a\tb,c\n"x\ty,z"\n')
    assert list(read_rows(str(path))) == [(1, ["a", "b,c"]), (2, ['"x', 'y,z"'])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'seq'"),
        ("seq,target\nMKV,1\n", "has no column 'label'; its columns are: seq, target"),
        ("seq,label\n", "has no rows below its header"),
        ("seq,label\nMKV\n", "line 2: has 1 cells, the header 2"),
        ('seq,label\n"MKV,1\n', "is no CSV"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_columns(str(path), ["seq"], ["label"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "holds no record"),
        ('{"seq": "MKV"}', "line 1: has no field 'label'"),
        ('{"seq": "MKV", "label": 1}\n[1]', "line 2: is no record with named fields"),
        ('{"seq": "MKV", "label"', "line 1: is not JSON"),
    ],
)
def test_what_is_wrong_with_json_lines_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_records(str(path), ["seq"], ["label"]))


@pytest.mark.parametrize("value", ["1.5", 1.5, [1.5], np.array([1.5], np.float32)])
def test_a_number_may_be_text_or_in_a_list(value: Any) -> None:
    assert number(value, "here") == 1.5


@pytest.mark.parametrize("value", ["x", "", None, [], {}, [[1.5]], "1,5"])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(DataError, match="here: the label is"):
        number(value, "here")


@pytest.mark.parametrize("value", ["0", 1, "2.0", [2]])
def test_a_class_is_a_whole_number_below_their_number(value: Any) -> None:
    assert class_number(value, 3, "here") in (0, 1, 2)


@pytest.mark.parametrize("value", ["3", -1, 0.5, "nan", "inf"])
def test_what_is_no_class_is_named(value: Any) -> None:
    with pytest.raises(DataError, match=r"here: the class is .* it must be a whole number from 0 to 2"):
        class_number(value, 3, "here")


def test_a_data_folder_gives_the_first_name_that_is_there_and_remembers_its_content(tmp_path: Path) -> None:
    (tmp_path / "b.csv.gz").write_bytes(b"x")
    (tmp_path / "c.csv").write_bytes(b"y")
    folder = DataFolder(str(tmp_path))
    assert folder.find("a.csv") is None
    assert folder.need("a.csv", "b.csv", "c.csv") == str(tmp_path / "b.csv.gz")
    assert folder.sha256 == {"b.csv.gz": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    with pytest.raises(MissingDataError, match=r"a\.csv: is not there, nor is d\.csv\."):
        folder.need("a.csv", "d.csv")


def test_the_terms_of_an_ontology_are_read(tmp_path: Path) -> None:
    root, former = "GO:0003674", "GO:0000009"
    text = "\n".join(
        [
            "format-version: 1.2\nid: nothing\n",
            term_stanza(root, "molecular_function", []),
            term_stanza("GO:0000001", "molecular_function", [root], f"alt_id: {former}", "relationship: part_of GO:1"),
            term_stanza("GO:0000002", "molecular_function", [root, "GO:0000001"]).replace("means", r"is \"so\""),
            term_stanza("GO:0000003", "molecular_function", [root], "is_obsolete: true"),
            "[Typedef]\nid: part_of\nname: part of\n",
        ]
    )
    path = tmp_path / "go.obo"
    path.write_text(text)
    terms, present = read_obo(str(path))
    assert list(terms) == [root, "GO:0000001", "GO:0000002"]
    assert present == {former: "GO:0000001"}
    assert terms["GO:0000002"].parents == [root, "GO:0000001"]
    assert terms["GO:0000002"].definition == 'What GO:0000002 is "so".'
    assert terms[root].namespace == "molecular_function" and terms[root].name == f"term {root}"


@pytest.mark.parametrize(
    ("text", "message"),
    [("format-version: 1.2\n", "holds no term"), (term_stanza("GO:1", "x", ["GO:2"]), "the parent 'GO:2' of GO:1")],
)
def test_what_is_wrong_with_an_ontology_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "go.obo"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_obo(str(path))


def test_links_to_go_are_read_with_their_evidence(tmp_path: Path) -> None:
    links = [
        "DR   GO; GO:0005783; C:endoplasmic reticulum; IDA:GO_Central.",
        "DR   GO; GO:0004497; F:activity; acting on a; b; IEA:InterPro.",
        "DR   Pfam; PF00001; x; 1.",
    ]
    path = tmp_path / "a.dat"
    path.write_text(entry_text("P00001", "MKV", links) + entry_text("P00002", "MKVA", []))
    assert list(read_go_links(str(path))) == [
        ("P00001", [("GO:0005783", "IDA"), ("GO:0004497", "IEA")]),
        ("P00002", []),
    ]


@pytest.mark.slow
def test_the_real_entries_have_the_links_that_are_known(real_data: Path) -> None:
    links = [found for _, found in read_go_links(str(real_data / "uniprot/sample_1216.dat.gz"))]
    assert (len(links), sum(map(bool, links)), sum(map(len, links))) == (1216, 1200, 23238)
