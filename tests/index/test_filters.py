from __future__ import annotations

import pyarrow as pa
import pytest

from protclip.embeddings.reading import METADATA
from protclip.errors import RequestError
from protclip.index.filters import OPERATORS, parse_filter

pytestmark = pytest.mark.unit

ROWS = [
    ("A1", "ATP synthase", "Homo sapiens", 9606, True, 100, ["3.6.1.3"], ["ATP5F1A", "b3734"]),
    ("B2", "Kinase (Fragment)", "Mus musculus", 10090, False, 200, ["3.61.1.1", "2.7.11.1"], ["Map2k1", "Mek 1"]),
    ("C3", None, None, None, None, None, None, None),
    ("D4", "kinase-like", "Homo sapiens", 9606, False, 300, [], ["atp5f1b"]),
]
NAMES = ("accession", "name", "organism", "organism_id", "reviewed", "length", "ec", "gene")
TABLE = pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in ROWS], schema=METADATA)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("organism_id=9606", "A1 D4"),
        ("organism_id = 9606 and reviewed", "A1"),
        ("organism_id=9606 AND NOT reviewed", "D4"),
        ("reviewed=false", "B2 D4"),
        ("reviewed != true", "B2 D4"),
        ("length >= 200 and length<300", "B2"),
        ("length in (100, 300)", "A1 D4"),
        ("accession in (A1,C3)", "A1 C3"),
        ("organism = 'homo SAPIENS'", "A1 D4"),
        ('organism contains "sapiens"', "A1 D4"),
        ("name contains KINASE", "B2 D4"),
        ("name contains '('", "B2"),
        ("ec = 3.6", "A1"),
        ("ec = 3.6.-.-", "A1"),
        ("ec=3.6.1.3", "A1"),
        ("ec = 2", "B2"),
        ("ec in (2.7, 3.6)", "A1 B2"),
        ("ec != 3.6", "B2 D4"),
        ("organism_id=10090 or length=100 and reviewed", "A1 B2"),
        ("(organism_id=10090 or length=100) and reviewed", "A1"),
        ("not (organism_id=10090 or length=100)", "D4"),
        ("not not reviewed", "A1"),
        ("text contains a", ""),
        ("gene = atp5f1a", "A1"),
        ("gene=B3734", "A1"),
        ("gene != ATP5F1A", "B2 D4"),
        ("not gene = ATP5F1A", "B2 D4"),
        ("gene in (MAP2K1, ATP5F1B, SOX17)", "B2 D4"),
        ("gene contains TP5", "A1 D4"),
        ("gene = ATP5", ""),
        ("gene = 'mek 1'", "B2"),
        ("gene contains ' '", "B2"),
        ("not gene contains f1", "B2"),
        ("organism_id=9606 or name contains kinase", "A1 B2 D4"),
    ],
)
@pytest.mark.parametrize("chunks", [1, 2])
def test_a_filter_finds_its_rows_and_unknown_values_meet_nothing(text, found, chunks):
    table = TABLE if chunks == 1 else pa.concat_tables([TABLE.slice(0, 2), TABLE.slice(2)])
    mask = parse_filter(text).mask(table)
    assert mask.dtype == bool and [row[0] for row, met in zip(ROWS, mask, strict=True) if met] == found.split()


@pytest.mark.parametrize(
    ("text", "place", "allowed"),
    [
        ("", 1, "organism_id"),
        ("organism_i=1", 1, "organism_id"),
        ("organism_id", 12, "one of ="),
        ("organism_id 9606", 13, "one of ="),
        ("organism_id=human", 13, "whole number"),
        ("organism_id=99999999999", 13, "whole number"),
        ("length contains 3", 8, "one of ="),
        ("reviewed=yes", 10, "true or false"),
        ("name = ATP synthase", 12, "'and', 'or' or the end"),
        ("name = 'ATP", 8, "a value"),
        ("ec=3.x", 4, "EC number"),
        ("(reviewed", 10, "')'"),
        ("reviewed)", 9, "'and', 'or' or the end"),
        ("reviewed and", 13, "a column"),
        ("name in ATP", 9, "'('"),
        ("name in (ATP; x)", 15, "')'"),
        ("not " * 60 + "reviewed", 205, "levels"),
        ("accession < A", 11, "one of ="),
        ("'reviewed'", 1, "a column"),
        ("gene < A", 6, "one of =, !=, contains, in"),
        ("gene = and", 8, "a value for 'gene'"),
    ],
)
def test_an_error_names_the_place_and_what_is_allowed(text, place, allowed):
    with pytest.raises(RequestError) as caught:
        parse_filter(text)
    assert f"character {place}:" in str(caught.value) and allowed in str(caught.value)


def test_every_column_of_the_answers_that_can_be_asked_for_is_there():
    assert set(OPERATORS) == set(METADATA.names) - {"sequence_hash"}


@pytest.mark.slow
def test_a_filter_that_is_long_is_read_and_answered():
    """White space at its end once took a time of its square: hours for this."""
    table = pa.table({"name": ["kinase", None], "length": pa.array([3, None], pa.int32())})
    assert parse_filter("length = 3" + " " * 1_000_000).mask(table).tolist() == [True, False]
    numbers = ",".join(map(str, range(100_000)))
    assert parse_filter(f"length in ({numbers})").mask(table).tolist() == [True, False]
    assert parse_filter(f"not length in ({numbers})").mask(table).tolist() == [False, False]
    assert not parse_filter(f"name contains {'k' * 2_000_000}").mask(table).any()


def test_a_long_filter_is_quoted_in_part():
    with pytest.raises(RequestError, match="character 1000001: found") as refused:
        parse_filter(" " * 1_000_000 + "b" * 1_000_000)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("text", ["name = \udcff", "name contains \ud800"])
def test_half_of_a_surrogate_pair_is_refused(text):
    with pytest.raises(RequestError, match="filter holds half of a surrogate pair at character"):
        parse_filter(text)
