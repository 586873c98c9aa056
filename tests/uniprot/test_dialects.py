"""Tables as R, pandas, Excel and others write them: their columns, delimiters, and words for nothing."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pytest
from entry_batches import assert_batches_hold
from hypothesis import given
from hypothesis import strategies as st

from protclip.errors import DataError
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import describe_unused_columns, open_batches, open_entries
from protclip.uniprot.table import read_table, read_table_batches

pytestmark = pytest.mark.unit

ROW = {
    "Entry": "Q00009",
    "Entry Name": "Q00009_TEST",
    "Reviewed": "unreviewed",
    "Protein names": "NAD(P)H dehydrogenase (EC 1.6.5.2) (Quinone reductase)",
    "Organism": "Homo sapiens (Human)",
    "Organism (ID)": "9606",
    "Protein existence": "Inferred from homology",
    "Sequence": "MKV",
    "Length": "3",
    "Function [CC]": "FUNCTION: Reduces, it.",
    "Subcellular location [CC]": "SUBCELLULAR LOCATION: Cytoplasm.",
    "Sequence similarities": "SIMILARITY: Belongs to the NQO family.",
}
ENTRY = Entry(
    accession="Q00009",
    entry_name="Q00009_TEST",
    reviewed=False,
    sequence="MKV",
    existence=3,
    name="NAD(P)H dehydrogenase (EC 1.6.5.2) (Quinone reductase)",
    function="FUNCTION: Reduces, it.",
    subcellular_location="SUBCELLULAR LOCATION: Cytoplasm.",
    similarity="SIMILARITY: Belongs to the NQO family.",
    display_name="NAD(P)H dehydrogenase",
    organism="Homo sapiens (Human)",
    organism_id=9606,
    ec=("1.6.5.2",),
)


def read(path: Path, text: str | bytes) -> list[Entry | BadEntry]:
    """What the file's reader gives; its batches must give the same."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    rows = list(open_entries(str(path)))
    structure = {"unknown status", "unknown protein existence", "wrong number of cells"}
    assert_batches_hold(open_batches(str(path)), rows, structure)
    return rows


def tsv(*rows: dict[str, str]) -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join("\t".join(cells) + "\n" for cells in lines)


def quoted(rows: Iterable[Iterable[str]], delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> str:
    """As programs write it."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


@pytest.mark.parametrize(
    "header",
    [
        [name.replace(" ", "_").replace("[", "").replace("]", "") for name in ROW],  # Function_CC
        ["".join(letter if letter.isalnum() else "." for letter in name) for name in ROW],  # R: Function..CC.
        [name.upper() for name in ROW],
        [f" {name.lower()} " for name in ROW],
        [name.replace(" ", "") for name in ROW],
        [f"{name}:" for name in ROW],
    ],
)
def test_columns_go_by_their_letters_whatever_stands_between_them(tmp_path: Path, header: list[str]) -> None:
    for ending, delimiter in ((".tsv", "\t"), (".csv", ",")):
        assert read(tmp_path / f"a{ending}", quoted([header, ROW.values()], delimiter)) == [ENTRY]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".tab"])
@pytest.mark.parametrize(
    "text",
    [
        tsv(ROW),
        quoted([ROW, ROW.values()], ","),
        quoted([ROW, ROW.values()], ";"),  # Excel where the comma is the decimal sign
        quoted([ROW, ROW.values()], "|"),
        "sep=;\n" + quoted([ROW, ROW.values()], ";"),  # Excel's own first line
        quoted([ROW, ROW.values()], "\t", csv.QUOTE_ALL),  # R's write.table
        quoted([["", *ROW], ["1", *ROW.values()]], ",", csv.QUOTE_ALL),  # R's write.csv
        "# UniProt 2026_04\n#\n\n# all of it, see Entry\n" + tsv(ROW),
        "# UniProt 2026_04; all\n" + quoted([ROW, ROW.values()], ","),
        "#" + tsv(ROW),
        "# one, two\n# " + quoted([ROW, ROW.values()], ","),
        "# Entry,Sequence\n" + quoted([ROW, ROW.values()], ","),
        "\n \n" + quoted([ROW, ROW.values()], ","),
    ],
)
def test_the_header_says_how_a_table_is_cut_whatever_the_file_is_called(tmp_path: Path, ending: str, text: str) -> None:
    assert read(tmp_path / f"a{ending}", text) == [ENTRY]
    assert read(tmp_path / f"b{ending}", text.encode("utf-16")) == [ENTRY]


def test_lines_are_counted_from_the_start_of_the_file(tmp_path: Path) -> None:
    bad = ROW | {"Sequence": "MK7"}
    for text in (tsv(ROW, bad), quoted([ROW, ROW.values(), bad.values()], ";")):
        refused = read(tmp_path / "a.csv", "# one\n\n# two\n" + text)[1]
        assert isinstance(refused, BadEntry)
        assert refused.line == 6


@pytest.mark.parametrize(
    "nothing", ["", " ", "NA", "nan", "NaN", "null", "NULL", "None", "N/A", "#N/A", "<NA>", "-", "."]
)
def test_what_stands_for_nothing_is_null(tmp_path: Path, nothing: str) -> None:
    expected = Entry(accession="Q00009", sequence="MKV")
    for cell in (nothing, f" {nothing} "):
        row = dict.fromkeys(ROW, cell) | {"Entry": "Q00009", "Sequence": "MKV"}
        assert read(tmp_path / "a.tsv", tsv(row)) == [expected]
        assert read(tmp_path / "a.csv", quoted([row, row.values()], ",")) == [expected]
        # Among rows that say something, and beside a property that does.
        assert read(tmp_path / "a.tsv", tsv(ROW, row, ROW)) == [ENTRY, expected, ENTRY]
        (entry,) = read(tmp_path / "a.tsv", tsv(ROW | {"Function [CC]": cell}))
        assert isinstance(entry, Entry)
        assert (entry.function, entry.num_properties) == (None, 3)


def test_texts_that_only_begin_as_nothing_does_are_texts(tmp_path: Path) -> None:
    for text in ("NA", "n/a pump", "None known.", "Na", "-10 region binding.", "(R)-lactate", "β", "Äpfel"):
        (entry,) = read(tmp_path / "a.tsv", tsv(ROW | {"Function [CC]": text}))
        assert isinstance(entry, Entry)
        assert entry.function == (None if text in ("NA", "Na") else f"FUNCTION: {text}")


@pytest.mark.parametrize("nothing", ["", "NA", "nan", "NULL", "None", "<NA>"])
def test_nothing_is_neither_an_accession_nor_a_sequence(tmp_path: Path, nothing: str) -> None:
    # Two of them would be repeats of one accession, and all but one row would go.
    table = ROW | {"Length": "NA"}
    rows = [table, table | {"Entry": nothing}, table | {"Entry": nothing}, table | {"Sequence": nothing}, table]
    for path, text in (
        (tmp_path / "a.tsv", tsv(*rows)),
        (tmp_path / "a.csv", quoted([table, *(row.values() for row in rows)], ",")),
    ):
        first, *bad, last = read(path, text)
        assert first == last == ENTRY
        assert [entry.reason for entry in bad if isinstance(entry, BadEntry)] == [
            "no accession",
            "no accession",
            "no sequence",
        ]


def test_a_column_of_lengths_tells_residues_from_nothing(tmp_path: Path) -> None:
    for sequence, length in (("NA", "2"), ("NAN", "3"), ("nan", "3.0")):
        (entry,) = read(tmp_path / "a.tsv", tsv(ROW | {"Sequence": sequence, "Length": length}))
        assert isinstance(entry, Entry)
        assert entry.sequence == sequence.upper()
    (bad,) = read(tmp_path / "a.tsv", tsv({"Entry": "Q00009", "Sequence": "NA"}))
    assert isinstance(bad, BadEntry)
    assert (bad.reason, bad.value) == ("no sequence", "NA")
    assert "Length" in bad.allowed
    assert [entry.sequence for entry in read(tmp_path / "a.fasta", ">sp|Q00009|A_B Name\nNA\n")] == ["NA"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("column", "cell", "field", "value"),
    [
        ("Reviewed", "UniProtKB reviewed (Swiss-Prot)", "reviewed", True),
        ("Reviewed", "UniProtKB unreviewed (TrEMBL)", "reviewed", False),
        ("Reviewed", "UniProtKB Unreviewed(TrEMBL)", "reviewed", False),
        ("Reviewed", "REVIEWED", "reviewed", True),
        ("Reviewed", "Swiss-Prot", "reviewed", True),
        ("Reviewed", "TRUE", "reviewed", True),
        ("Reviewed", "False", "reviewed", False),
        ("Protein existence", "1: Evidence at protein level;", "existence", 1),
        ("Protein existence", "2: Evidence at transcript level", "existence", 2),
        ("Protein existence", "inferred from homology", "existence", 3),
        ("Protein existence", "Evidence_at_protein_level", "existence", 1),
        ("Protein existence", "4", "existence", 4),
        ("Protein existence", "5.0", "existence", 5),
        ("Organism (ID)", "9606.0", "organism_id", 9606),
        ("Length", "3.0", "sequence", "MKV"),
    ],
)
def test_cells_are_understood_as_other_exports_write_them(
    tmp_path: Path, column: str, cell: str, field: str, value: object
) -> None:
    for text in (cell, f" {cell} "):
        # Beside other spellings, so that a block has several of them.
        first, entry, last = read(tmp_path / "a.tsv", tsv(ROW, ROW | {column: text}, ROW))
        assert first == last == ENTRY
        assert getattr(entry, field) == value


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("Reviewed", "perhaps", "unknown status"),
        ("Reviewed", "not reviewed", "unknown status"),
        ("Protein existence", "Evidence at DNA level", "unknown protein existence"),
        ("Protein existence", "6", "unknown protein existence"),
        ("Protein existence", "10", "unknown protein existence"),
        ("Protein existence", "1: Predicted", "unknown protein existence"),
        ("Length", "three", "unreadable length"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, column: str, cell: str, reason: str) -> None:
    first, bad, last = read(tmp_path / "a.tsv", tsv(ROW, ROW | {column: cell}, ROW))
    assert first == last == ENTRY
    assert isinstance(bad, BadEntry)
    assert (bad.reason, bad.value) == (reason, cell)


def test_row_names_without_a_column_in_the_header_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for delimiter in ("\t", ","):  # R's write.table as it is by default
        (bad,) = read(tmp_path / "a.tsv", quoted([ROW, ["1", *ROW.values()]], delimiter, csv.QUOTE_ALL))
        assert isinstance(bad, BadEntry)
        assert (bad.reason, bad.line) == ("wrong number of cells", 2)
        assert "row.names=FALSE" in bad.allowed


def test_blanks_round_a_cell_do_not_matter(tmp_path: Path) -> None:
    for blank in (" ", "  ", "\u00a0", "\u3000"):
        row = {name: f"{blank}{cell}{blank}" for name, cell in ROW.items()}
        assert read(tmp_path / "a.tsv", tsv(ROW, row)) == [ENTRY, ENTRY]
        assert read(tmp_path / "a.csv", quoted([ROW, row.values()], ",")) == [ENTRY]


ODD_CELLS = {
    "Entry": ["Q00009", " Q00009", '"Q00009"', "NA", "", "Entry", '"Entry" ', "Q0 9", "A", "-"],
    "Reviewed": [
        "reviewed",
        "unreviewed",
        " reviewed ",
        '"reviewed"',
        "NA",
        "",
        "-",
        "UniProtKB reviewed (Swiss-Prot)",
        "x",
    ],
    "Protein existence": [
        "Predicted",
        "1: Evidence at protein level;",
        "",
        " NaN",
        "3",
        "3.0",
        "9",
        "Predicted\0",
        "\u00a0",
    ],
    "Function [CC]": [
        "FUNCTION: Does.",
        "NA",
        " NA ",
        '"NA"',
        '"None"  ',
        "",
        "   ",
        "-",
        "β",
        "Äh",
        "x",
        "(",
        "nan" + " " * 20,
    ],
    "Sequence similarities": ["", "NA", "SIMILARITY: It."],
    "Protein families": ["", "NA", "It family"],
    "Sequence": ["MKV", "NA", "nan", " MKV ", "", "MK7", "Sequence", '"MKV"'],
    "Length": ["", "NA", "3", "3.0", "2"],
}


@given(rows=st.lists(st.tuples(*map(st.sampled_from, ODD_CELLS.values())), min_size=1, max_size=8))
def test_batches_are_the_rows_whatever_stands_in_the_cells(rows: list[tuple[str, ...]]) -> None:
    text = "".join("\t".join(row) + "\n" for row in [tuple(ODD_CELLS), *rows]).encode()
    entries: list[Entry | BadEntry] = []
    with contextlib.suppress(DataError):  # nothing but the header, over and over
        entries += read_table(io.BytesIO(text), "a.tsv")
        structure = {"unknown status", "unknown protein existence", "wrong number of cells"}
        assert_batches_hold(read_table_batches(io.BytesIO(text), "a.tsv"), entries, structure)
    for entry in entries:
        if isinstance(entry, Entry):
            assert entry.accession in ("Q00009", "A", "Entry")
            assert entry.function in (None, "FUNCTION: Does.", "FUNCTION: β", "FUNCTION: Äh", "FUNCTION: x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Accession_number;Seq\nQ00009;MKV\n", r"no column 'Entry'.*'Accession_number'"),
        ("Entry,Sequense\nQ00009,MKV\n", r"no column 'Sequence'.*'Sequense'"),
        ('<?xml version="1.0"?>\n<uniprot>\n', r"XML"),
        ("<!DOCTYPE html>\n<html>\n", r"HTML"),
        ('{"results": []}\n', r"JSON"),
        (b"PAR1\x00\x01\n", r"parquet"),
        (b"\x7fELF\x00\x01\n", r"is no table but binary data"),
        ("", r"is no table but empty"),
        ("# Only a comment\n\n", r"is no table but empty, or comments alone"),
    ],
)
def test_a_file_that_is_no_such_table_is_said_to_be_what_it_is(tmp_path: Path, text: str | bytes, message: str) -> None:
    for ending in (".tsv", ".csv"):
        with pytest.raises(DataError, match=message):
            read(tmp_path / f"a{ending}", text)


def test_columns_that_are_not_read_are_named_once_with_what_was_probably_meant(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.csv", "b.tsv", "c.csv", "d.fasta")]
    odd = ["Entry", "Sequence", "Funtion_CC", "Keywords", "Subcell. location [CC]", "Protein names", "protein_name"]
    for path, text in zip(
        paths,
        (",".join(odd) + "\n", "Entry\tSequence\tOrganism\n", ";".join(odd) + "\n", ">sp|Q00009|A_B Name\nMKV\n"),
        strict=True,
    ):
        Path(path).write_text(text)
    assert list(describe_unused_columns(paths)) == [
        f"{paths[0]} and 1 more like it: not read are the columns 'Funtion_CC' (did you mean 'Function [CC]'?), "
        "'Keywords', 'Subcell. location [CC]' (did you mean 'Subcellular location [CC]'?), "
        "'protein_name' (read is 'Protein names')"
    ]
    Path(paths[1]).write_text("Entry\tSeq\n")
    with pytest.raises(DataError, match=r"b\.tsv: no column 'Sequence'"):
        list(describe_unused_columns(paths))


def test_the_spelling_of_the_website_wins_over_a_shorter_one(tmp_path: Path) -> None:
    row = {"Function": "transport", "subcellular location": "cytosol"} | ROW
    assert read(tmp_path / "a.tsv", tsv(row)) == [ENTRY]
    row = {"Function": ROW["Function [CC]"]} | {name: cell for name, cell in ROW.items() if name != "Function [CC]"}
    assert read(tmp_path / "a.tsv", tsv(row)) == [ENTRY]
