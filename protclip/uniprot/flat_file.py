"""UniProtKB flat files (``.dat``): https://web.expasy.org/docs/userman.html.

Entries are cut out of the stream as bytes and only the lines that are used are decoded; the references, features and
cross-references that make up most of a file are passed over at the speed of a memory search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from protclip.errors import DataError
from protclip.uniprot.comments import TOPICS
from protclip.uniprot.crc64 import crc64
from protclip.uniprot.entry import UTF8, BadEntry, Entry, RefusedError, checked_sequence
from protclip.uniprot.gene_names import parse_gene_lines
from protclip.uniprot.protein_names import parse_names, unwrap
from protclip.uniprot.streams import num_lines, read_blocks

MAX_ENTRY_BYTES = 64 << 20
"""The largest entries of UniProtKB have a few MB; more without a ``//`` line is another kind of file."""

_RUN_END = {code: re.compile(rb"\n(?!" + code + rb"   )") for code in (b"ID", b"AC", b"DE", b"GN", b"OS", b"OX", b"PE")}
# All that is looked for in a whole entry is found in one pass.
_MARK = re.compile(rb"\n(?:(?:ID|AC|PE|SQ)   |CC   -!- (?:" + "|".join(TOPICS).encode() + rb"):|//[ \t]*(?=\n))")
_LONGEST_MARK = 64
_COMMENT = len(b"\nCC   -!- ")
_BLOCK_END = re.compile(rb"\n(?!CC    )")  # a comment's further lines are indented
_SQ = re.compile(rb"SQ   SEQUENCE +(\d{1,9}) AA; +\d+ MW; +([0-9A-F]{16}) CRC64;")
_TAXON = re.compile(r"NCBI_TaxID=(\d{1,9})\b")
_EXISTENCE = re.compile(r"([1-5]):")
_WHITESPACE = b" \t\n"
# Reviewed and Unreviewed since 2006; Swiss-Prot's STANDARD and TrEMBL's PRELIMINARY before.
STATUS = {"Reviewed": True, "STANDARD": True, "Unreviewed": False, "PRELIMINARY": False}


def read_flat_file(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The entries of a flat file, in its order, in constant memory.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged (entries before the damage are given first) or holds no entry at all.
    """
    found = False
    for piece in _cut_entries(stream, source):
        found = True
        yield _parse(piece, source)
    if not found:
        raise no_entry(source)


def no_entry(source: str) -> DataError:
    """The error of a file without entries."""
    return DataError(
        f"{source}: holds no entry; a UniProtKB flat file has ID, AC, …, SQ lines and ends entries with //."
    )


def no_terminator(source: str, line: int) -> DataError:
    """The error of a file whose entry that starts at this line has no end."""
    return DataError(
        f"{source}: no // line in {MAX_ENTRY_BYTES >> 20} MB from line {line}; is this a UniProtKB flat file?"
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """One entry as it stands in the file."""

    line: int
    """Number of its first line."""
    text: bytes
    """Starts and ends with a newline and holds no terminator."""
    marks: dict[bytes, list[int]]
    """Where the lines with these codes start, at their newline; of CC, the blocks of the used topics."""


def _cut_entries(stream: IO[bytes], source: str) -> Iterator[_Piece]:
    buffer = b"\n"
    line, searched = 1, 0
    marks: dict[bytes, list[int]] = {}
    for block in read_blocks(stream, source):
        buffer += block
        start = 0
        for mark in _MARK.finditer(buffer, searched):
            code, at, searched = mark[0][1:3], mark.start(), mark.end()
            # An entry that lost its // does not take the next one with it: each ID line starts an entry.
            if code == b"//" or (code == b"ID" and at > start):
                piece = _Piece(line, buffer[start : at + 1], marks)
                if not piece.text.isspace():
                    yield piece
                # The newline in front of a piece stands for that of the terminator before it.
                line += num_lines(piece.text) - (code == b"ID")
                start, marks = (at if code == b"ID" else searched), {}
            if code != b"//":
                marks.setdefault(code, []).append(at - start)
        buffer = buffer[start:]
        searched = max(searched - start, len(buffer) - _LONGEST_MARK, 0)  # a mark may be cut by the block's end
        if len(buffer) > MAX_ENTRY_BYTES:
            raise no_terminator(source, line)
    # The last entry's // may lack its newline, or the file may end inside the entry, which its checksum will tell.
    text = buffer.rstrip()
    text = (text[:-2] if text.endswith(b"\n//") else text) + b"\n"
    if not text.isspace():
        yield _Piece(line, text, marks)


def _parse(piece: _Piece, source: str) -> Entry | BadEntry:
    accession = None
    try:
        accession = _accession(piece)
        return _entry(piece, accession)
    except RefusedError as refusal:
        return refusal.at(source=source, line=piece.line, accession=accession)
    except UnicodeDecodeError as error:
        value = repr(bytes(error.object[error.start : error.end]))
        return RefusedError("not UTF-8", value, UTF8).at(source=source, line=piece.line, accession=accession)


def _entry(piece: _Piece, accession: str) -> Entry:
    # The manual fixes the order of the line codes, so each is looked for in its part alone:
    # ID AC DT DE GN OS OC OX | RN … | CC | DR | PE | KW FT | SQ.
    head = piece.text[: _find(piece.text, b"\nCC   ", _find(piece.text, b"\nRN   ", len(piece.text) - 1)) + 1]
    comments = _comments(piece)
    identity = " ".join(_lines(head, b"ID")).split()
    reviewed = _reviewed(identity)
    sequence = _sequence(piece)
    length = identity[-2] if identity[-1:] in (["AA"], ["AA."]) else ""
    if length.isdecimal() and length != str(len(sequence)):
        # Names of one entry and the sequence of another, which a file that lost bytes in between would give.
        raise RefusedError("length is not the ID line's", f"{len(sequence)} residues", f"{length[:9]}, the ID line's")
    names = parse_names(_lines(head, b"DE"))
    taxon = _TAXON.search(" ".join(_lines(head, b"OX")))
    return Entry(
        accession=accession,
        entry_name=identity[0] if identity else None,
        reviewed=reviewed,
        sequence=sequence,
        existence=_existence(piece),
        name=names.name,
        function=comments.get("FUNCTION"),
        subcellular_location=comments.get("SUBCELLULAR LOCATION"),
        similarity=comments.get("SIMILARITY"),
        display_name=names.display_name,
        organism=_organism(unwrap(_lines(head, b"OS"))),
        organism_id=int(taxon[1]) if taxon else None,
        ec=names.ec,
        gene=parse_gene_lines(_lines(head, b"GN")),
    )


def _find(text: bytes, mark: bytes, end: int) -> int:
    """Where the mark is before the end, or the end."""
    found = text.find(mark, 0, end)
    return end if found < 0 else found


def _lines(text: bytes, code: bytes) -> list[str]:
    """The lines of a line code that stand together, without the code."""
    start = text.find(b"\n" + code + b"   ")
    return [] if start < 0 else _run(text, code, start)[0]


def _run(text: bytes, code: bytes, start: int) -> tuple[list[str], int]:
    """The lines of a line code from one that starts there, without the code, and where they end."""
    match = _RUN_END[code].search(text, start + 1)
    assert match is not None  # entries end with a newline
    return [line[5:] for line in text[start + 1 : match.start()].decode().split("\n")], match.start()


def _comments(piece: _Piece) -> dict[str, str]:
    """The used topics that the entry has: their blocks, each with its label, joined as UniProt's exports join them."""
    blocks: dict[str, list[str]] = {}
    for mark in piece.marks.get(b"CC", ()):
        match = _BLOCK_END.search(piece.text, mark + 1)
        assert match is not None
        first, *further = piece.text[mark + _COMMENT : match.start()].decode().split("\n")
        topic = first.partition(":")[0]
        block = unwrap([first, *(line[2:] for line in further)])
        if len(block) > len(topic) + 1:
            blocks.setdefault(topic, []).append(block)
    return {topic: "; ".join(texts) for topic, texts in blocks.items()}


def _accession(piece: _Piece) -> str:
    starts = piece.marks.get(b"AC", [])
    lines, end = _run(piece.text, b"AC", starts[0]) if starts else ([], 0)
    accession = " ".join(lines).split(";")[0].strip()
    if len(accession.split()) != 1:
        raise RefusedError("no accession", accession, "an AC line such as 'AC   P12345;'")
    for second in starts:
        if second >= end:
            # A file that lost bytes between two entries would give the names of one with the sequence of the other.
            value = piece.text[second + 1 : piece.text.find(b"\n", second + 1)].decode("latin-1")
            raise RefusedError("two entries run into each other", value, "one AC block, and a // line after each entry")
    return accession


def _organism(text: str) -> str | None:
    # The line ends with a full stop, which in "Bacillus sp." is the name's own.
    return (text if text.endswith(" sp.") else text.removesuffix(".")) or None


def _reviewed(identity: list[str]) -> bool:
    status = identity[1].removesuffix(";") if len(identity) > 1 else ""
    if status not in STATUS:
        raise RefusedError("unknown status", " ".join(identity), "an ID line with Reviewed; or Unreviewed;")
    return STATUS[status]


def _existence(piece: _Piece) -> int | None:
    starts = piece.marks.get(b"PE")
    if not starts:
        return None  # releases before 2007 have none
    first = _run(piece.text, b"PE", starts[-1])[0][0]
    match = _EXISTENCE.match(first)
    if match is None:
        raise RefusedError("unknown protein existence", first, "a level of 1 to 5, as in 'PE   1: Evidence …'")
    return int(match[1])


def _sequence(piece: _Piece) -> str:
    text, starts = piece.text, piece.marks.get(b"SQ")
    if not starts:
        raise RefusedError("no sequence", "", "an SQ line and the residues")
    start = starts[-1]
    end = text.find(b"\n", start + 1)
    header = _SQ.match(text, start + 1)
    if header is None:
        value = text[start + 1 : end].decode("latin-1")
        raise RefusedError("unreadable SQ line", value, "'SQ   SEQUENCE   64 AA;  7091 MW;  C00D8704F604CA72 CRC64;'")
    sequence = checked_sequence(text[end:].translate(None, _WHITESPACE))
    if len(sequence) != int(header[1]):
        raise RefusedError(
            "length is not the SQ line's", f"{len(sequence)} residues", f"{int(header[1])}, the SQ line's"
        )
    if (found := f"{crc64(sequence.encode()):016X}") != header[2].decode():
        raise RefusedError("checksum is not the SQ line's", f"CRC64 {found}", f"{header[2].decode()}, the SQ line's")
    return sequence
