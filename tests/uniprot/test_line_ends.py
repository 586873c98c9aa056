"""Line ends and Unicode encodings: LF, CRLF and CR, in one file too, UTF-8 and UTF-16 are one text to every reader."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from protclip.commands.explain import read_protein
from protclip.embeddings.inputs import find_inputs, read_rows
from protclip.errors import DataError
from protclip.protanno import blocks
from protclip.protanno.blocks import cut_blocks, read_block
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot import streams
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_batches, open_entries

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden.xml"
ROWS = [(f"Q{i:05d}", "reviewed", f"Öne, {i}", "MKV" if i % 7 else "MK7") for i in range(30)]
TEXTS = {
    # Every sixth entry is bad, so that lines are told.
    "a.dat": "".join(
        entry.replace("CRC64", "CRC32") if i % 6 == 0 else entry
        for i, entry in enumerate(synthetic_proteome(12, 3, seed=1))
    ),
    "a.fasta": "".join(f">sp|{a}|A_B {name} OS=X\n{s}\nWWW\n" for a, _, name, s in ROWS),
    "a.tsv": "".join("\t".join(row) + "\n" for row in [("Entry", "Reviewed", "Protein names", "Sequence"), *ROWS]),
    "a.csv": "Entry,Reviewed,Protein names,Sequence\n" + "".join(f'{a},{r},"{n}",{s}\n' for a, r, n, s in ROWS),
    "a.jsonl": "".join(json.dumps({"seq": s, "text": f"PROTEIN NAME: {n}."}) + "\n" for _, _, n, s in ROWS),
    "a.xml": GOLDEN.read_text(),
}


def in_turns(text: str) -> str:
    """The text with each of its lines ended in another way than the one before."""
    ends = itertools.cycle(("\n", "\r", "\r\n"))
    return "".join(line + next(ends) for line in text.removesuffix("\n").split("\n"))


def marked(text: str) -> str:
    """The text with a byte order mark before each line, as files leave one inside that are put together."""
    return "".join(f"\ufeff{line}" for line in text.splitlines(keepends=True))


DIALECTS: dict[str, Callable[[str], bytes]] = {
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "several in one file": lambda text: in_turns(text).encode(),
    "CRLF written as text once more": lambda text: text.replace("\n", "\r\r\n").encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "byte order marks inside": lambda text: in_turns(marked(text)).encode(),
    "UTF-16, marks inside": lambda text: marked(text).encode("utf-16"),
    "UTF-16": lambda text: in_turns(text).encode("utf-16"),
    "UTF-16, big endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16, big endian, without a mark": lambda text: text.encode("utf-16-be"),
}


def in_batches(path: Path) -> list[Entry | BadEntry]:
    found: list[Entry | BadEntry] = []
    for batch in open_batches(str(path)):
        found += [*map(batch.entry, range(len(batch.reviewed))), *batch.bad]
    return found


def in_blocks(path: Path) -> list[Entry | BadEntry]:
    found: list[Entry | BadEntry] = []
    for block in cut_blocks(str(path)):
        for batch in read_block(block):
            found += [*map(batch.entry, range(len(batch.reviewed))), *batch.bad]
    return found


def by_kind(entries: list[Entry | BadEntry]) -> tuple[list[Entry], list[BadEntry]]:
    bad = [entry for entry in entries if isinstance(entry, BadEntry)]
    return [entry for entry in entries if isinstance(entry, Entry)], sorted(bad, key=lambda entry: entry.line)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", TEXTS)
def test_every_reader_gives_the_same_whatever_the_line_ends_and_the_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dialect: str
) -> None:
    path = tmp_path / name
    path.write_text(TEXTS[name])
    expected = list(open_entries(str(path)))
    good, bad = by_kind(expected)
    assert good
    assert bad or name == "a.xml"
    data = DIALECTS[dialect](TEXTS[name])
    path.write_bytes(data)
    packed = tmp_path / f"packed-{name}.gz"
    packed.write_bytes(gzip.compress(data))
    assert list(open_entries(str(path))) == expected
    assert [entry for entry in open_entries(str(packed)) if isinstance(entry, Entry)] == good
    assert by_kind(in_batches(path)) == (good, bad)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    for size in (streams.BLOCK_BYTES, 7):  # of 7: ends of blocks stand between CR and LF too
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
        assert by_kind(in_blocks(path)) == (good, bad)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_text_lines_keep_their_numbers_whatever_the_line_ends_and_the_encoding(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(DIALECTS[dialect]("Binds ATP.\n\nCleaves it,\twith β.\nLast.\n"))
    rows = list(read_rows(find_inputs([str(path)], id_column=None, value_column=None), "text"))
    assert [(row["accession"], row["text"]) for row in rows if isinstance(row, dict)] == [
        ("line-1", "Binds ATP."),
        ("line-3", "Cleaves it,\twith β."),
        ("line-4", "Last."),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_fasta_file_of_a_question_is_read_whatever_the_line_ends_and_the_encoding(
    tmp_path: Path, dialect: str
) -> None:
    path = tmp_path / "some.fasta"
    path.write_bytes(DIALECTS[dialect](">one first\nMKV\nACD\n>two second\nWWW\n"))
    assert read_protein(str(path), "one") == ("one", "MKVACD")
    assert read_protein(str(path), "two") == ("two", "WWW")


def test_blocks_end_lines_alike_wherever_the_stream_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a\rb\r\nc\n\rd\r\re\r\r\nf\r\r\rg\r\r\r\nh\n\n\r\r"
    expected = b"a\nb\nc\n\nd\n\ne\nf\n\n\ng\n\nh\n\n\n\n"
    for size in range(1, len(text) + 1):
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
        assert b"".join(streams.read_blocks(io.BytesIO(text), "test")) == expected


def test_a_damaged_utf_16_file_is_an_error_after_what_stands_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "cut.fasta"
    path.write_bytes(">sp|Q00001|A_B Name\nMKV\n>sp|Q00002|A_B Name\nMKV\n".encode("utf-16") + b"\x00")
    with pytest.raises(DataError, match=r"cut\.fasta: cannot be read to its end .*utf-16"):
        list(open_entries(str(path)))


def test_a_line_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name, text in (
        ("a.tsv", "Entry\tProtein names\tSequence\nQ00001\tÖne\tMKV\nQ00002\tTwo\tMKV\n"),
        ("a.csv", "Entry,Protein names,Sequence\nQ00001,Öne,MKV\nQ00002,Two,MKV\n"),
        ("a.fasta", ">sp|Q00001|A_B Öne\nMKV\n>sp|Q00002|A_B Two\nMKV\n"),
        ("a.dat", TEXTS["a.dat"].replace("RecName: Full=", "RecName: Full=Ö", 2)),
    ):
        path = tmp_path / name
        path.write_bytes(text.encode("cp1252"))
        refused = [entry for entry in open_entries(str(path)) if isinstance(entry, BadEntry)]
        if name == "a.dat":
            refused = [entry for entry in refused if entry.reason == "not UTF-8"]
        (bad,) = refused
        assert bad.reason == "not UTF-8"
        assert "iconv -f WINDOWS-1252 -t UTF-8" in bad.allowed
