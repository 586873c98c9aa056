"""Long runs of one thing: reading takes time in proportion to the file, whatever stands in it.

No clock is looked at: where the time grows with the square, each of these takes many minutes.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.flat_file_batches import read_flat_file_batches
from protclip.uniprot.protein_names import parse_names
from protclip.uniprot.xml_entries import read_xml

pytestmark = pytest.mark.unit

LONG = 1_000_000
XML = b'<uniprot xmlns="http://uniprot.org/uniprot">\n%s</uniprot>\n'


def flat(*, identity: bytes = b"", names: bytes = b"A", length: bytes = b"3") -> bytes:
    return (
        b"ID   A_TEST Unreviewed; " + identity + b"\nAC   P00001;\nDE   SubName: Full=" + names + b";\n"
        b"PE   4: Predicted;\nSQ   SEQUENCE   " + length + b" AA;  354 MW;  72C336F000000000 CRC64;\n     MKV\n//\n"
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (flat(names=b"A" + b" " * LONG + b"x}"), Entry),
        (flat(names=b"A" + b"{ECO:" * (LONG // 5) + b"x}"), Entry),
        (flat(identity=b"1" * LONG + b" of them"), Entry),
        (flat(identity=b"1" * LONG + b" AA."), BadEntry),
        (flat(length=b"3" * LONG), BadEntry),
    ],
    ids=[
        "blanks in a name",
        "braces in a name",
        "digits in ID",
        "a length of digits in ID",
        "a length of digits in SQ",
    ],
)
def test_a_flat_file_with_a_long_run_is_read(text: bytes, kind: type) -> None:
    (entry,) = read_flat_file(io.BytesIO(text), "x.dat")
    assert isinstance(entry, kind)


def test_many_bad_entries_are_read_in_batches() -> None:
    bad = flat().replace(b"AC   P00001;\n", b"")
    batches = list(read_flat_file_batches(io.BytesIO(bad * (LONG // len(bad))), "x.dat"))
    lines = [entry.line for batch in batches for entry in batch.bad]
    assert lines == list(range(1, len(lines) * bad.count(b"\n") + 1, bad.count(b"\n")))


@pytest.mark.parametrize(
    "head",
    [
        b"<?xml" + b" " * LONG + b"?>",
        b"<?xml " * (LONG // 6) + b"?>",
        b"<?xml " + b" encoding" * (LONG // 9) + b"?>",
        b"<!--" + b"<?xml -->" * (LONG // 9) + b"-->",
    ],
    ids=["blanks", "openings", "attributes", "comments"],
)
def test_a_long_xml_declaration_is_read(head: bytes) -> None:
    first = next(iter(read_xml(io.BytesIO(head + XML % b"<entry></entry>"), "x.xml")))
    assert isinstance(first, BadEntry)


@pytest.mark.slow
def test_many_openings_of_an_xml_entry_are_told_with_their_lines() -> None:
    bad = list(read_xml(io.BytesIO(XML % (b"<entry \n" * (LONG // 16) + b"</entry>\n")), "x.xml"))
    assert [entry.line for entry in bad if isinstance(entry, BadEntry)] == list(range(2, LONG // 16 + 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: parse_names(["RecName: Full=A" + " " * LONG + "{x}"]),
        lambda: parse_names(["RecName: Full=A" + " {ECO:1}" * (LONG // 8)]),
    ],
)
def test_an_evidence_tag_is_looked_for_at_the_end_of_a_name_alone(make: Callable[[], object]) -> None:
    assert make()
