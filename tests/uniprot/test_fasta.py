"""FASTA: UniProt's headers as entries, anybody's as records."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from pathlib import Path

import pytest

from protclip.errors import DataError
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.fasta import Header, Record, parse_header, read_fasta, read_proteins, read_records
from protclip.uniprot.formats import expand_inputs, open_entries

pytestmark = pytest.mark.unit

HEADER = "sp|P02769|ALBU_BOVIN Albumin (Fragment) OS=Bos taurus (strain A=1) OX=9913 GN=ALB PE=1 SV=4"


def records(text: str) -> list[Record | BadEntry]:
    return list(read_records(io.BytesIO(text.encode()), "test.fasta"))


def test_a_uniprot_header_is_read_in_full() -> None:
    assert parse_header(f">{HEADER}\n") == Header(
        accession="P02769",
        entry_name="ALBU_BOVIN",
        reviewed=True,
        name="Albumin (Fragment)",
        organism="Bos taurus (strain A=1)",
        organism_id=9913,
        gene="ALB",
        existence="1",
    )


@pytest.mark.parametrize(
    ("line", "accession", "name"),
    [
        (">my_protein what ever OS=none", "my_protein", "what ever OS=none"),
        (">one", "one", None),
        (">UniRef50_P02769 Albumin n=3", "UniRef50_P02769", "Albumin n=3"),
        (">1abc_A\tmol:protein length:3  HEMOGLOBIN", "1abc_A", "mol:protein length:3  HEMOGLOBIN"),
        (">one\t\ttwo words", "one", "two words"),
        ("> one two", "one", "two"),
        (">one\x0btwo", "one", "two"),
        (">", "", None),
    ],
)
def test_another_header_gives_its_first_word_and_the_rest(line: str, accession: str, name: str | None) -> None:
    assert parse_header(line) == Header(accession=accession, name=name)


def test_records_keep_their_order_lines_and_residues() -> None:
    first, second, third = records(">a one\nMKV\nmk v*\n\n>b\r\nAC\r\n>c\nWW")
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert isinstance(third, Record)
    assert [(r.header.accession, r.sequence, r.line) for r in (first, second, third)] == [
        ("a", "MKVMKV", 1),
        ("b", "AC", 5),
        ("c", "WW", 7),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (">x\n>y\nMK\n", "no sequence"),
        (">x\nMK*V\n>y\nMK\n", "letter outside the alphabet"),
        (">\nMKV\n>y\nMK\n", "no accession"),
    ],
)
def test_a_bad_record_is_given_in_its_place(text: str, reason: str) -> None:
    bad, good = records(text)
    assert isinstance(bad, BadEntry)
    assert bad.reason == reason
    assert bad.line == 1
    assert isinstance(good, Record)


@pytest.mark.parametrize(("text", "message"), [("", "holds no sequence"), ("\n\n", "holds no"), ("MKV\n", "first '>'")])
def test_a_file_without_records_is_an_error(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        records(text)


def test_the_proteins_of_a_file_end_at_one_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "my.fasta.gz"
    path.write_bytes(gzip.compress(f">{HEADER}\nMKV\n>mine a name\nMKL*\n>bad\nMK7\n>after\nMKV\n".encode()))
    proteins = read_proteins(str(path))
    assert [next(proteins).header.accession, next(proteins).sequence] == ["P02769", "MKL"]
    with pytest.raises(DataError, match=r"my\.fasta\.gz, line 5.*mend or remove it"):
        next(proteins)


def test_curation_refuses_headers_that_are_not_uniprots_and_unknown_levels() -> None:
    text = f">{HEADER}\nMKV\n>mine\nMKV\n>{HEADER.replace('PE=1', 'PE=7')}\nMKV\n"
    good, foreign, unknown = read_fasta(io.BytesIO(text.encode()), "test.fasta")
    assert isinstance(good, Entry)
    assert (good.name, good.display_name, good.existence) == ("Albumin (Fragment)", "Albumin", 1)
    assert isinstance(foreign, BadEntry)
    assert (foreign.reason, foreign.value, foreign.line) == ("header is not UniProt's", "mine", 3)
    assert isinstance(unknown, BadEntry)
    assert unknown.reason == "unknown protein existence"


@pytest.mark.slow
def test_the_real_fasta_has_the_counts_of_its_readme(real_data: Path) -> None:
    entries = list(open_entries(str(real_data / "uniprot/sequences_20000.fasta.gz")))
    good = [entry for entry in entries if isinstance(entry, Entry)]
    assert len(good) == len(entries) == 20_000
    assert Counter(entry.reviewed for entry in good) == {False: 16_817, True: 3_183}
    assert {entry.existence for entry in good} == {1, 2, 3, 4, 5}
    assert all(entry.name and entry.organism for entry in good)


def test_inputs_are_expanded_once_each_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.dat", "a.dat", "c.fasta"):
        (tmp_path / name).write_text("x")
    found = expand_inputs([f"{tmp_path}/*.dat", f"{tmp_path}/c.fasta", f"{tmp_path}/a.dat"])
    assert found == [f"{tmp_path}/{name}" for name in ("a.dat", "b.dat", "c.fasta")]
    with pytest.raises(DataError, match="no file matches"):
        expand_inputs([f"{tmp_path}/*.fa"])
    with pytest.raises(DataError, match="does not exist"):
        expand_inputs([f"{tmp_path}/d.dat"])
    with pytest.raises(DataError, match="is a folder"):
        expand_inputs([str(tmp_path)])
