"""One entry, however it is written: flat file, XML, TSV and CSV give the same properties."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rest_json import rest_entry

from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.formats import open_entries
from protclip.uniprot.json_entries import read_json
from protclip.uniprot.table import read_table

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
# The first golden entry as the website exports it, written down by hand from its documentation.
EXPORT = {
    "Entry": "P00001",
    "Entry Name": "NOVEL_TEST",
    "Reviewed": "reviewed",
    "Protein names": (
        "Alpha {beta} enzyme, mitochondrial (ABE) (A-B-E) (EC 1.2.3.4) (EC 1.2.3.n5) (Second name) (2ND) (EC 1.2.3.4) "
        "(allergen Tes t 1) (CD antigen CD999) (Testgrastim) [Cleaved into: Small chain (SC); Large chain] "
        "[Includes: First domain (EC 2.2.2.2) (Domain one); Second domain] (Fragments)"
    ),
    "Gene Names": "nov nova NOV-2 b0001 b0002; Tes p 2 nova ORF_1",
    "Gene Names (primary)": "nov; Tes p 2",
    "Organism": "Testus organismus (strain ATCC 00001 / DSM 2 / NBRC 100001) (Test-organism)",
    "Organism (ID)": "12345",
    "Protein existence": "Evidence at transcript level",
    "Sequence": "ACDEFGHIKLMNPQRSTVWYBUXZ",
    "Function [CC]": (
        "FUNCTION: First block that is long enough to be wrapped, with alpha-cadinene cut in the word, and an N- and "
        "C-terminal part - which is not cut (PubMed:1). {ECO:0000269|PubMed:1, ECO:0000256|HAMAP-Rule:MF_00001}.; "
        "FUNCTION: [Isoform 2]: Second block."
    ),
    "Subcellular location [CC]": (
        "SUBCELLULAR LOCATION: Cytoplasm. Note=DOMAIN OF UNKNOWN FUNCTION: in the SIMILARITY: of it."
    ),
    "Sequence similarities": "SIMILARITY: Belongs to the test family. {ECO:0000305}.",
}


def test_an_export_gives_the_entry_of_the_flat_file() -> None:
    expected = next(read_flat_file(io.BytesIO((HERE / "golden.dat").read_bytes()), "golden.dat"))
    rows = [EXPORT.keys(), EXPORT.values()]
    tab = "".join("\t".join(row) + "\n" for row in rows)
    comma = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    assert list(read_table(io.BytesIO(tab.encode()), "golden.tsv")) == [expected]
    assert list(read_table(io.BytesIO(comma.encode()), "golden.csv")) == [expected]


def test_real_entries_in_xml_and_flat_file_are_the_same_in_all_fields(real_data: Path) -> None:
    folder = real_data / "uniprot"
    xml = {entry.accession: entry for entry in open_entries(str(folder / "swissprot_250.xml.gz"))}
    common = [
        (entry, xml[entry.accession])
        for path in [folder / "sample_1216.dat.gz", *sorted((folder / "parser_cases").iterdir())]
        for entry in open_entries(str(path))
        if isinstance(entry, Entry) and entry.accession in xml
    ]
    assert [entry.accession for entry, _ in common] == ["P15711", "P84716"]
    for flat, other in common:
        assert flat == other


def test_real_entries_in_json_and_xml_are_the_same_in_all_fields(real_data: Path) -> None:
    """Texts, names, evidence and sequences of 250 real entries, in the shape that the REST service gives them."""
    path = real_data / "uniprot/swissprot_250.xml.gz"
    with gzip.open(path) as stream:
        root = ElementTree.fromstring(stream.read())
    records = [rest_entry(element) for element in root if element.tag.endswith("}entry")]
    text = json.dumps({"results": records}).encode()
    read = list(read_json(io.BytesIO(text), "real.json"))
    expected = list(open_entries(str(path)))
    assert len(read) == len(expected) == 250
    # The service writes the parts of a location as the flat file does, which XML does not.
    assert [_without_case(entry) for entry in read] == [_without_case(entry) for entry in expected]


def _without_case(entry: Entry | BadEntry) -> Entry:
    assert isinstance(entry, Entry)
    location = entry.subcellular_location
    return dataclasses.replace(entry, subcellular_location=location and "SUBCELLULAR LOCATION: " + location.lower())


def test_real_names_are_taken_apart_as_the_flat_file_has_them(real_data: Path) -> None:
    """The recommended name and the EC numbers of 1,216 entries, from their cell alone."""
    header = "Entry\tSequence\tProtein names\n"
    flat = [entry for entry in open_entries(str(real_data / "uniprot/sample_1216.dat.gz")) if isinstance(entry, Entry)]
    rows = "".join(f"{entry.accession}\t{entry.sequence}\t{entry.name}\n" for entry in flat)
    table = [entry for entry in read_table(io.BytesIO((header + rows).encode()), "x.tsv") if isinstance(entry, Entry)]
    assert len(table) == len(flat) == 1216
    assert [(entry.name, entry.ec) for entry in table] == [(entry.name, entry.ec) for entry in flat]
    different = {
        entry.display_name: other.display_name
        for entry, other in zip(flat, table, strict=True)
        if entry.display_name != other.display_name
    }
    # Nothing tells these groups from an alternative name.
    assert different == {
        "Glycine dehydrogenase (decarboxylating)": "Glycine dehydrogenase",
        "Phosphoenolpyruvate carboxykinase (ATP)": "Phosphoenolpyruvate carboxykinase",
    }


@pytest.mark.parametrize(
    ("cell", "display_name", "ec"),
    [
        ("NAD(P)H dehydrogenase (EC 1.6.5.2)", "NAD(P)H dehydrogenase", ("1.6.5.2",)),
        ("Superoxide dismutase [Cu-Zn] (EC 1.15.1.1)", "Superoxide dismutase [Cu-Zn]", ("1.15.1.1",)),
        (
            "Acetate--CoA ligase (ADP-forming) subunit alpha (ACS)",
            "Acetate--CoA ligase (ADP-forming) subunit alpha",
            (),
        ),
        ("Alpha-(1,3)-fucosyltransferase", "Alpha-(1,3)-fucosyltransferase", ()),
        ("A (B (C) D) (E(F))", "A", ()),
        ("A (EC 1.-.-.-) [Includes: B (EC 2.3.4.n5) (EC 1.-.-.-); C] (Fragment)", "A", ("1.-.-.-", "2.3.4.n5")),
        ("A [Cleaved into: B (b) (b [c]); C] [Includes: D]", "A", ()),
        ("Poly(A)", "Poly(A)", ()),
        ("Poly(A) (B)", "Poly(A)", ()),
        ("A) (B", "A) (B", ()),
        ("A B)", "A B)", ()),
        ("(A)", "(A)", ()),
    ],
)
def test_the_first_name_ends_where_its_alternatives_begin(cell: str, display_name: str, ec: tuple[str, ...]) -> None:
    text = f"Entry\tSequence\tProtein names\nQ00001\tM\t{cell}\n"
    assert list(read_table(io.BytesIO(text.encode()), "x.tsv")) == [
        dataclasses.replace(Entry(accession="Q00001", sequence="M"), name=cell, display_name=display_name, ec=ec)
    ]


@pytest.mark.parametrize("name", ["x.tsv", "x.csv"])
@pytest.mark.parametrize("text", ["{}", "FUNCTION: {}", "function: {}"])
def test_a_comment_of_a_table_carries_its_label_whoever_wrote_the_table(name: str, text: str) -> None:
    """Tables that people make themselves have the text alone."""
    columns = {
        "Function [CC]": ("FUNCTION", "Binds ATP."),
        "Subcellular location [CC]": ("SUBCELLULAR LOCATION", "Cytoplasm."),
        "Sequence similarities": ("SIMILARITY", "Belongs to the test family."),
    }
    cells = [text.replace("FUNCTION", label).replace("function", label.lower()) for label, _ in columns.values()]
    cells = [cell.format(value) for cell, (_, value) in zip(cells, columns.values(), strict=True)]
    separator = "\t" if name == "x.tsv" else ","
    rows = [["Entry", "Sequence", *columns], ["Q00001", "MKV", *cells], ["Q00002", "MKV", "", "", ""]]
    table = "".join(separator.join(row) + "\n" for row in rows).encode()
    labelled, without = read_table(io.BytesIO(table), name)
    assert isinstance(labelled, Entry)
    assert (labelled.function, labelled.subcellular_location, labelled.similarity) == (
        "FUNCTION: Binds ATP.",
        "SUBCELLULAR LOCATION: Cytoplasm.",
        "SIMILARITY: Belongs to the test family.",
    )
    assert isinstance(without, Entry)
    assert without.num_properties == 1
