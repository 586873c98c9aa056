"""UniProtKB XML: the same entries as the flat file gives, and what becomes of damaged and hostile files."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pytest

from protclip.errors import DataError
from protclip.uniprot import streams, xml_entries
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
GOLDEN = (HERE / "golden.xml").read_bytes()
HEAD, _, REST = GOLDEN.partition(b'<entry dataset="Swiss-Prot"')
GOOD = b'<entry dataset="TrEMBL"' + REST.partition(b'<entry dataset="TrEMBL"')[2].partition(b"<copyright")[0]
TAIL = b"</uniprot>\n"


def read(text: bytes) -> list[Entry | BadEntry]:
    return list(xml_entries.read_xml(io.BytesIO(text), "test.xml"))


def location(xml: str) -> str | None:
    """The subcellular location of an entry with these elements in its comment."""
    comment = f'<comment type="subcellular location">{xml}</comment><proteinExistence'.encode()
    (entry,) = read(HEAD + GOOD.replace(b"<proteinExistence", comment) + TAIL)
    assert isinstance(entry, Entry)
    return entry.subcellular_location


def test_the_golden_entries_are_those_of_the_flat_file() -> None:
    entries = [dataclasses.asdict(entry) for entry in read(GOLDEN)]
    assert json.loads(json.dumps(entries)) == json.loads((HERE / "golden.json").read_text())


def test_the_real_file_gives_250_reviewed_entries(real_data: Path) -> None:
    entries = list(open_entries(str(real_data / "uniprot/swissprot_250.xml.gz")))
    good = {entry.accession: entry for entry in entries if isinstance(entry, Entry)}
    assert len(good) == len(entries) == 250
    assert all(entry.reviewed and entry.name and entry.organism_id for entry in good.values())
    assert Counter(entry.existence for entry in good.values()) == {1: 63, 2: 39, 3: 130, 4: 18}
    comments = [(entry.function, entry.subcellular_location, entry.similarity) for entry in good.values()]
    assert [sum(text is not None for text in texts) for texts in zip(*comments, strict=True)] == [175, 85, 223]
    assert good["P0C9F0"].similarity == "SIMILARITY: Belongs to the asfivirus MGF 100 family. {ECO:0000305}."


def test_the_levels_of_existence_were_once_capitalised() -> None:
    (entry,) = read(HEAD + GOOD.replace(b'"predicted"', b'"Evidence at transcript level"') + TAIL)
    assert isinstance(entry, Entry)
    assert entry.existence == 2


def test_a_location_is_written_as_in_the_flat_file() -> None:
    def place(*parts: str, topology: str = "", orientation: str = "") -> str:
        kinds = [("location", part) for part in parts]
        kinds += [("topology", part) for part in topology.split(", ") if part]
        kinds += [("orientation", orientation)] if orientation else []
        elements = "".join(f'<{kind} evidence="1">{part}</{kind}>' for kind, part in kinds)
        return f"<subcellularLocation>{elements}</subcellularLocation>"

    tag = "{ECO:0000313}"
    anchored = place("Cell membrane", topology="Lipid-anchor, GPI-anchor", orientation="Cytoplasmic side")
    assert location(f'<molecule>Isoform 2</molecule>{anchored}<text evidence="1">Of two kinds</text>') == (
        f"SUBCELLULAR LOCATION: [Isoform 2]: Cell membrane {tag}; Lipid-anchor, GPI-anchor {tag}; "
        f"Cytoplasmic side {tag}. Note=Of two kinds. {tag}."
    )
    for parts, text in (
        (("Cytoplasm", "Cytoskeleton", "Spindle"), "Cytoplasm, cytoskeleton, spindle"),
        (("Golgi apparatus", "Trans-Golgi network"), "Golgi apparatus, trans-Golgi network"),
        (("Golgi apparatus", "Golgi stack membrane"), "Golgi apparatus, Golgi stack membrane"),
        (("Nucleus", "PML body"), "Nucleus, PML body"),
        (("Nucleus", "Cajal body"), "Nucleus, Cajal body"),
        (("Cytoplasm", "P-body"), "Cytoplasm, P-body"),
        (("Cytoplasm", "Myofibril", "Sarcomere", "Z line"), "Cytoplasm, myofibril, sarcomere, Z line"),
    ):
        assert location(place(*parts)) == f"SUBCELLULAR LOCATION: {text} {tag}."
    assert location(place("Cytoplasm") + place("Nucleus")) == f"SUBCELLULAR LOCATION: Cytoplasm {tag}. Nucleus {tag}."
    assert location("<text>Secreted by someone.</text>") == "SUBCELLULAR LOCATION: Note=Secreted by someone."


@pytest.mark.parametrize(
    ("old", "new", "reason", "value"),
    [
        (b"<accession>Q00009</accession>", b"", "no accession", ""),
        (b'dataset="TrEMBL"', b'dataset="Other"', "unknown status", "Other"),
        (b'"predicted"', b'"imagined"', "unknown protein existence", "imagined"),
        (b">MKV<", b"><", "no sequence", ""),
        (b">MKV<", b">MK7<", "letter outside the alphabet", "7 at 3"),
        (b">MKV<", b">MK<", "length is not the sequence element's", "2 residues"),
        (b">MKV<", b">MVK<", "checksum is not the sequence element's", "CRC64"),
        (b'fullName evidence="1"', b'fullName evidence="1" evidence="2"', "not well-formed XML", "duplicate"),
        (b"Submitted name", b"Submitted \xff name", "not well-formed XML", "token"),
        (b"Submitted name", b"Submitted &lol; name", "not well-formed XML", "undefined entity"),
        (b"<protein>", b"", "not well-formed XML", "mismatched"),
        (b"<entry dataset", b"<antry dataset", "text between entries", "<antry"),
        (b"</entry>", b"", "not well-formed XML", "element"),
        (
            b"<proteinExistence",
            b'<comment type="similarity"><text evidence="9">Of none.</text></comment><proteinExistence',
            "unknown evidence key",
            "9",
        ),
    ],
)
def test_a_bad_entry_is_given_with_reason_and_place_and_its_neighbours_are_kept(
    old: bytes, new: bytes, reason: str, value: str
) -> None:
    bad = GOOD.replace(old, new, 1)
    assert bad != GOOD
    first, refused, last = read(HEAD + GOOD + bad + GOOD + TAIL)
    assert isinstance(first, Entry)
    assert isinstance(last, Entry)
    assert first.accession == last.accession == "Q00009"
    assert isinstance(refused, BadEntry)
    assert refused.reason == reason
    assert value in refused.value
    assert refused.line == (HEAD + GOOD).count(b"\n") + 1
    assert refused.accession == (None if reason == "no accession" else "Q00009")


def test_a_file_that_is_cut_gives_the_entries_before_the_cut_then_an_error_that_names_the_line() -> None:
    for text, line in (
        (HEAD + GOOD + GOOD[:-20], (HEAD + GOOD + GOOD[:-20]).count(b"\n") + 1),
        (HEAD + GOOD, (HEAD + GOOD).count(b"\n") + 1),
    ):
        seen: list[Entry | BadEntry] = []
        with pytest.raises(DataError, match=rf"test\.xml, line {line}: the file ends before </uniprot>"):
            for entry in xml_entries.read_xml(io.BytesIO(text), "test.xml"):
                seen.append(entry)
        assert [type(entry) for entry in seen] == [Entry]


def test_a_document_type_is_refused_before_anything_is_read() -> None:
    bomb = b'<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]>\n'
    declaration, _, rest = GOLDEN.partition(b"?>\n")
    with pytest.raises(DataError, match=r"line 1: declares a document type"):
        read(declaration + b"?>\n" + bomb + rest)
    with pytest.raises(DataError, match=r"line 1: declares a document type"):
        read(declaration + b'?>\n<!DOCTYPE uniprot SYSTEM "file:///etc/passwd">\n' + rest)
    # Behind an entry it is refused as well, and inside one it is no XML.
    with pytest.raises(DataError, match="declares a document type"):
        read(HEAD + GOOD + bomb + GOOD + TAIL)
    inside, good = read(HEAD + GOOD.replace(b"<protein>", bomb + b"<protein>") + GOOD + TAIL)
    assert isinstance(inside, BadEntry)
    assert inside.reason == "not well-formed XML"
    assert isinstance(good, Entry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds no whole entry"),
        (HEAD + TAIL, "holds no whole entry"),
        (GOLDEN.replace(b"uniprot.org/uniprot", b"uniprot.org/uniref"), "is this UniProtKB XML"),
        (GOLDEN.replace(b"UTF-8", b"Shift_JIS"), "encoding 'Shift_JIS'"),
    ],
)
def test_another_kind_of_file_is_an_error(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(text)


def test_concatenated_files_line_ends_and_block_borders_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(GOLDEN)
    assert read(GOLDEN + GOLDEN) == expected * 2
    assert read(gzip.decompress(gzip.compress(GOLDEN) * 2)) == expected * 2
    assert read(GOLDEN.replace(b"\n", b"\r\n")) == expected
    for size in (1, 7):
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
        assert read(GOLDEN) == expected


def test_an_entry_without_end_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_entries, "MAX_ENTRY_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"no </entry> in 1 MB from line 1"):
        read(HEAD + GOOD.replace(b"</entry>", b"") + b" " * (2 << 20))
