"""UniProt's exports: TSV without quoting, CSV with it, columns by name, and batches that are the rows."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import pytest
from entry_batches import assert_batches_hold

from protclip.errors import DataError
from protclip.uniprot import csv_rows, streams, table
from protclip.uniprot.encodings import Utf8Stream
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

ROW = {
    "Entry": "Q00009",
    "Entry Name": "Q00009_TEST",
    "Reviewed": "unreviewed",
    "Protein names": "NAD(P)H dehydrogenase (EC 1.6.5.2) (Quinone reductase)",
    "Gene Names": "nqo1",
    "Organism": "Homo sapiens (Human)",
    "Organism (ID)": "9606",
    "Protein existence": "Inferred from homology",
    "EC number": "1.6.5.2; 1.-.-.-",
    "Sequence": "MKV",
    "Length": "3",
    "Function [CC]": "FUNCTION: Reduces. {ECO:0000250}.; FUNCTION: [Isoform 2]: Does not.",
    "Subcellular location [CC]": "SUBCELLULAR LOCATION: Cytoplasm {ECO:0000250}.",
    "Sequence similarities": "SIMILARITY: Belongs to the NQO family. {ECO:0000305}.",
    "Protein families": "NQO family",
}
ENTRY = Entry(
    accession="Q00009",
    entry_name="Q00009_TEST",
    reviewed=False,
    sequence="MKV",
    existence=3,
    name="NAD(P)H dehydrogenase (EC 1.6.5.2) (Quinone reductase)",
    function="FUNCTION: Reduces. {ECO:0000250}.; FUNCTION: [Isoform 2]: Does not.",
    subcellular_location="SUBCELLULAR LOCATION: Cytoplasm {ECO:0000250}.",
    similarity="SIMILARITY: Belongs to the NQO family. {ECO:0000305}.",
    display_name="NAD(P)H dehydrogenase",
    organism="Homo sapiens (Human)",
    organism_id=9606,
    ec=("1.6.5.2", "1.-.-.-"),
    gene=("nqo1",),
)


def tsv(*rows: dict[str, str]) -> bytes:
    """A table with the columns of the first row."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join("\t".join(cells) + "\n" for cells in lines).encode()


def read(text: bytes) -> list[Entry | BadEntry]:
    """What read_table gives; read_table_batches must give the same."""
    rows = list(table.read_table(utf8(text), "test.tsv"))
    batches = table.read_table_batches(utf8(text), "test.tsv")
    assert_batches_hold(batches, rows, {"unknown status", "unknown protein existence", "wrong number of cells"})
    return rows


def utf8(text: bytes) -> IO[bytes]:
    return cast(IO[bytes], Utf8Stream(io.BytesIO(text)))


def read_csv(text: bytes) -> list[Entry | BadEntry]:
    return list(table.read_table(utf8(text), "test.csv"))


def accessions(entries: Sequence[Entry | BadEntry]) -> list[str | None]:
    return [entry.accession for entry in entries if isinstance(entry, Entry)]


def without(*columns: str) -> dict[str, str]:
    return {name: cell for name, cell in ROW.items() if name not in columns}


def test_a_row_is_read_in_full() -> None:
    assert read(tsv(ROW)) == [ENTRY]
    shuffled = dict(random.Random(0).sample(list(ROW.items()), len(ROW)))
    assert read(tsv(shuffled)) == [ENTRY]


@pytest.mark.parametrize(
    "names",
    [
        {"Entry Name": "Entry name", "Reviewed": "Status", "Organism (ID)": "Organism ID", "Length": "length"},
        {
            "Entry": "accession",
            "Entry Name": "id",
            "Reviewed": "reviewed",
            "Protein names": "protein_name",
            "Organism": "organism_name",
            "Organism (ID)": "organism_id",
            "Protein existence": "protein_existence",
            "EC number": "ec",
            "Gene Names": "gene_names",
            "Sequence": "sequence",
            "Function [CC]": "cc_function",
            "Subcellular location [CC]": "cc_subcellular_location",
            "Sequence similarities": "cc_similarity",
            "Protein families": "protein_families",
        },
    ],
)
def test_columns_go_by_any_of_their_names(names: dict[str, str]) -> None:
    assert read(tsv({names.get(name, name): cell for name, cell in ROW.items()})) == [ENTRY]


def test_what_a_table_does_not_say_is_none() -> None:
    assert read(tsv({"Entry": "Q00009", "Sequence": "MKV"})) == [Entry(accession="Q00009", sequence="MKV")]
    silent = dict.fromkeys(ROW, "") | {
        name: ROW[name] for name in ("Entry", "Sequence", "Length", "Reviewed", "Protein existence")
    }
    assert read(tsv(silent)) == [Entry(accession="Q00009", sequence="MKV", reviewed=False, existence=3)]


def test_sequence_similarities_win_over_protein_families() -> None:
    families = "SIMILARITY: Belongs to the NQO family."
    for row, expected in (
        (ROW, ENTRY.similarity),
        (without("Protein families"), ENTRY.similarity),
        (without("Sequence similarities"), families),
        (ROW | {"Sequence similarities": ""}, families),
        (ROW | {"Protein families": ""}, ENTRY.similarity),
        (ROW | {"Sequence similarities": "", "Protein families": ""}, None),
    ):
        (entry,) = read(tsv(row))
        assert isinstance(entry, Entry)
        assert entry.similarity == expected


def test_ec_numbers_come_from_the_names_where_there_is_no_column() -> None:
    (entry,) = read(tsv(without("EC number")))
    assert isinstance(entry, Entry)
    assert entry.ec == ("1.6.5.2",)


def test_a_quote_character_joins_no_lines() -> None:
    quoted = ROW | {"Protein names": '"5-prime" exonuclease'}
    open_quote = ROW | {"Protein names": '"Unclosed'}
    names = [entry.name for entry in read(tsv(ROW, quoted, open_quote, ROW)) if isinstance(entry, Entry)]
    assert names == [ENTRY.name, '"5-prime" exonuclease', '"Unclosed', ENTRY.name]


def test_an_unknown_existence_does_not_take_over_that_of_the_row_before() -> None:
    first, bad, last = read(tsv(ROW, ROW | {"Protein existence": "Evidence at DNA level"}, ROW))
    assert isinstance(bad, BadEntry)
    assert (bad.reason, bad.value, bad.line) == ("unknown protein existence", "Evidence at DNA level", 3)
    assert first == last == ENTRY


@pytest.mark.parametrize(
    ("column", "cell", "reason", "value"),
    [
        ("Entry", "", "no accession", ""),
        ("Entry", "Q0 9", "no accession", "Q0 9"),
        ("Reviewed", "perhaps", "unknown status", "perhaps"),
        ("Sequence", "", "no sequence", ""),
        ("Sequence", "MK7", "letter outside the alphabet", "7 at 3"),
        ("Length", "4", "length is not that of its column", "3 residues"),
        ("Organism (ID)", "human", "unreadable taxonomy identifier", "human"),
        ("Organism", "Homo\tsapiens", "wrong number of cells", "16 cells"),
        ("Organism", "Homo\nsapiens", "wrong number of cells", "6 cells"),
        ("Organism", "Homo \udcff", "not UTF-8", "xff"),
    ],
)
def test_a_bad_row_is_given_with_reason_and_place_and_its_neighbours_are_kept(
    column: str, cell: str, reason: str, value: str
) -> None:
    header, *rows = tsv(ROW, ROW, ROW).splitlines(keepends=True)
    rows[1] = ("\t".join((ROW | {column: cell}).values()) + "\n").encode(errors="surrogateescape")
    first, refused, *others, last = read(header + b"".join(rows))
    assert first == last == ENTRY
    assert isinstance(refused, BadEntry)
    assert (refused.reason, refused.line) == (reason, 3)
    assert value in refused.value
    assert refused.accession == (None if reason in ("no accession", "not UTF-8") else "Q00009")
    assert refused.allowed
    assert len(others) == cell.count("\n")


def test_rows_that_take_the_slower_way_are_read_too() -> None:
    for change in ({"Entry": "Q00009-2"}, {"Sequence": "mkv"}, {"Organism (ID)": "9606.0"}, {"Organism": "Bölk"}):
        (entry,) = read(tsv(ROW | change))
        assert isinstance(entry, Entry)
        assert (entry.sequence, entry.organism_id) == ("MKV", 9606)
        assert entry.accession == change.get("Entry", "Q00009")


def test_marks_line_ends_blank_lines_and_a_second_header_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [without("Protein families") | {"Entry": f"Q{i:05d}"} for i in range(40)]
    text = tsv(*rows)
    expected = read(text)
    assert len(accessions(expected)) == len(expected) == 40
    header = text.partition(b"\n")[0] + b"\n"
    for other in (
        b"\xef\xbb\xbf" + text,
        text.replace(b"\n", b"\r\n"),
        text.removesuffix(b"\n"),
        text + b"\n \n",
        text.replace(b"Q00020\t", b"\n" + header + b"Q00020\t").replace(b"\n\n", b"\n"),
    ):
        assert read(other) == expected
    for size in (1, 1000):
        monkeypatch.setattr(streams, "BLOCK_BYTES", max(7, size))
        assert read(text) == expected
        assert read(text.replace(b"\n", b"\r\n")) == expected
        bad = read(text.replace(b"Q00030", b""))[30]
        assert isinstance(bad, BadEntry)
        assert bad.line == 32


def test_rows_that_only_together_have_the_right_number_of_cells_are_refused() -> None:
    entries = read(b"Entry\tSequence\tOrganism\nA\tMKV\nB\tMK\tO\tX\n")
    assert [type(entry) for entry in entries] == [BadEntry, BadEntry]


def test_an_empty_sequence_is_refused_without_a_column_of_lengths_too() -> None:
    good, bad = read(tsv(without("Length"), without("Length") | {"Sequence": ""}))
    assert isinstance(good, Entry)
    assert isinstance(bad, BadEntry)
    assert bad.reason == "no sequence"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is no table but empty"),
        (tsv(without("Sequence")), "no column 'Sequence'"),
        (tsv(ROW).partition(b"\n")[0], "no row below its header"),
        (tsv(ROW).replace(b"\t", b"/"), "no column 'Entry'"),
    ],
)
def test_a_file_without_the_columns_or_rows_is_an_error(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(text)
    with pytest.raises(DataError, match=message):
        read_csv(text.replace(b"\t", b","))


def test_another_kind_of_file_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(DataError, match="is this a table"):
        read(b"no end " * (1 << 19))


def csv_text(*rows: dict[str, str]) -> bytes:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    quoted = [
        ['"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell for cell in row] for row in lines
    ]
    return "".join(",".join(cells) + "\n" for cells in quoted).encode()


def test_csv_cells_may_hold_commas_quotes_and_line_ends() -> None:
    name = 'Protein "A", the\nfirst'
    text = csv_text(ROW, ROW | {"Protein names": name}, ROW)
    for variant in (text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"), text.removesuffix(b"\n") + b"\n\n"):
        first, second, third = read_csv(variant)
        assert first == third == ENTRY
        assert isinstance(second, Entry)
        assert second.name == name


def test_an_open_quote_in_csv_takes_no_other_row_with_it() -> None:
    rows = csv_text(*[ROW | {"Entry": f"Q0000{i}", "Protein names": "A, b"} for i in range(5)]).splitlines(
        keepends=True
    )
    rows[3] = rows[3].replace(b'"A, b"', b'"A b')
    entries = read_csv(b"".join(rows))
    assert accessions(entries) == ["Q00000", "Q00001", "Q00003", "Q00004"]
    (bad,) = (entry for entry in entries if isinstance(entry, BadEntry))
    assert (bad.reason, bad.line, bad.accession) == ("unreadable CSV", 4, "Q00002")


def test_two_open_quotes_in_one_column_do_not_make_one_row_of_two() -> None:
    rows = [f'Q0000{i},"A b",MKV\n' for i in range(4)]
    rows[1] = rows[1].replace('b"', "b")
    entries = read_csv(("Entry,Protein names,Sequence\n" + "".join(rows)).encode())
    assert accessions(entries) == ["Q00000", "Q00002", "Q00003"]


def test_a_quote_that_is_never_closed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = csv_text(*[ROW | {"Entry": f"Q{i:05d}", "Protein names": "A b"} for i in range(400)])
    text = rows.replace(b"Q00001,", b'"Q00001,')
    expected = [f"Q{i:05d}" for i in range(400) if i != 1]
    assert accessions(read_csv(text)) == expected
    monkeypatch.setattr(csv_rows, "MAX_CELL_CHARS", 4096)
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1000)
    assert accessions(read_csv(text)) == expected
    stream = io.BytesIO(text)
    next(entry for entry in table.read_table(stream, "test.csv") if isinstance(entry, BadEntry))
    assert stream.tell() < len(text) / 4


def test_the_real_export_has_the_counts_of_its_readme(real_data: Path) -> None:
    entries = list(open_entries(str(real_data / "uniprot/trembl_export_186.csv.gz")))
    good = [entry for entry in entries if isinstance(entry, Entry)]
    assert len(good) == len(entries) == 186
    assert Counter(entry.reviewed for entry in good) == {False: 178, True: 8}
    assert Counter(entry.existence for entry in good) == {1: 10, 2: 26, 3: 149, 4: 1}
    assert all(entry.name and entry.display_name and entry.organism and entry.organism_id for entry in good)
    labels = ("FUNCTION: ", "SUBCELLULAR LOCATION: ", "SIMILARITY: ")
    for entry in good:
        for text, label in zip((entry.function, entry.subcellular_location, entry.similarity), labels, strict=True):
            assert text is None or text.startswith(label)
