"""UniProtKB flat files (``.dat``): https://web.expasy.org/docs/userman.html.

Entries are cut out of the stream as bytes and only the lines that are used are decoded; the references, features and
cross-references that make up most of a file are passed over at the speed of a memory search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from protclip.errors import DataError
from protclip.uniprot.crc64 import crc64
from protclip.uniprot.entry import BadEntry, Entry, RefusedError, checked_sequence
from protclip.uniprot.protein_names import parse_names, unwrap
from protclip.uniprot.streams import read_blocks

MAX_ENTRY_BYTES = 64 << 20
"""The largest entries of UniProtKB have a few MB; more without a ``//`` line is another kind of file."""

_TERMINATOR = re.compile(rb"\n//[ \t\r]*(?=\n)")
_RUN_END = {code: re.compile(rb"\n(?!" + code + rb"   )") for code in (b"ID", b"AC", b"DE", b"OS", b"OX", b"PE")}
_TOPICS = ("FUNCTION", "SUBCELLULAR LOCATION", "SIMILARITY")
_BLOCK = re.compile(rb"\nCC   -!- (" + "|".join(_TOPICS).encode() + rb"):")
_BLOCK_END = re.compile(rb"\n(?!CC    )")  # a comment's further lines are indented
_SQ = re.compile(rb"SQ   SEQUENCE +(\d+) AA; +\d+ MW; +([0-9A-F]{16}) CRC64;")
_TAXON = re.compile(r"NCBI_TaxID=(\d{1,9})\b")
_EXISTENCE = re.compile(r"([1-5]):")
_WHITESPACE = b" \t\r\n"
# Reviewed and Unreviewed since 2006; Swiss-Prot's STANDARD and TrEMBL's PRELIMINARY before.
_STATUS = {"Reviewed": True, "STANDARD": True, "Unreviewed": False, "PRELIMINARY": False}


def read_flat_file(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The entries of a flat file, in its order, in constant memory.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged (entries before the damage are given first) or holds no entry at all.
    """
    found = False
    for line, text in _cut_entries(stream, source):
        found = True
        yield _parse(text, source, line)
    if not found:
        raise DataError(
            f"{source}: holds no entry; a UniProtKB flat file has ID, AC, …, SQ lines and ends entries with //."
        )


def _cut_entries(stream: IO[bytes], source: str) -> Iterator[tuple[int, bytes]]:
    """(line number of its start, bytes) of each entry; the bytes start with a newline and hold no terminator."""
    buffer = bytearray(b"\n")
    line, searched = 1, 0
    for block in read_blocks(stream, source):
        buffer += block
        start = 0
        while match := _TERMINATOR.search(buffer, max(start, searched)):
            text = bytes(buffer[start : match.start() + 1])
            yield from _split_unterminated(line, text)
            line += text.count(b"\n")  # the newline in front stands for the terminator's
            start = match.end()
        del buffer[:start]
        searched = max(0, len(buffer) - 64)  # a terminator may be cut by the block's end
        if len(buffer) > MAX_ENTRY_BYTES:
            raise DataError(
                f"{source}: no // line in {MAX_ENTRY_BYTES >> 20} MB from line {line}; is this a UniProtKB flat file?"
            )
    # The last entry's // may lack its newline, or the file may end inside the entry, which its checksum will tell.
    text = bytes(buffer).rstrip()
    yield from _split_unterminated(line, (text[:-2] if text.endswith(b"\n//") else text) + b"\n")


def _split_unterminated(line: int, text: bytes) -> Iterator[tuple[int, bytes]]:
    """An entry that lost its // does not take the next one with it: each ID line starts an entry."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    start = 0
    while start >= 0:
        end = text.find(b"\nID   ", start + 1)
        piece = text[start:] if end < 0 else text[start : end + 1]
        if not piece.isspace():
            yield line + text.count(b"\n", 1, start + 1), piece
        start = end


def _parse(text: bytes, source: str, line: int) -> Entry | BadEntry:
    accession = None
    try:
        accession = _accession(text)
        return _entry(text, accession)
    except RefusedError as refusal:
        return refusal.at(source=source, line=line, accession=accession)
    except UnicodeDecodeError as error:
        value = repr(bytes(error.object[error.start : error.end]))
        return RefusedError("not UTF-8", value, "UTF-8 text").at(source=source, line=line, accession=accession)


def _entry(text: bytes, accession: str) -> Entry:
    # The manual fixes the order of the line codes, so each is looked for in its part alone:
    # ID AC DT DE GN OS OC OX | RN … | CC | DR | PE | KW FT | SQ.
    comments_start = _find(text, b"\nCC   ", 0)
    head = text[: min(_find(text, b"\nRN   ", 0), comments_start) + 1]
    comments_end = max(comments_start, text.rfind(b"\nCC   "))
    comments = _comments(text, comments_start, comments_end)
    identity = " ".join(_lines(head, b"ID")).split()
    names = parse_names(_lines(head, b"DE"))
    taxon = _TAXON.search(" ".join(_lines(head, b"OX")))
    return Entry(
        accession=accession,
        entry_name=identity[0] if identity else None,
        reviewed=_reviewed(identity),
        sequence=_sequence(text),
        existence=_existence(text[comments_end:] if comments_end < len(text) - 1 else text),
        name=names.name,
        function=comments.get("FUNCTION"),
        subcellular_location=comments.get("SUBCELLULAR LOCATION"),
        similarity=comments.get("SIMILARITY"),
        display_name=names.display_name,
        organism=_organism(unwrap(_lines(head, b"OS"))),
        organism_id=int(taxon[1]) if taxon else None,
        ec=names.ec,
    )


def _find(text: bytes, mark: bytes, start: int) -> int:
    """Where the mark is, or the end of the last line."""
    found = text.find(mark, start)
    return len(text) - 1 if found < 0 else found


def _lines(text: bytes, code: bytes) -> list[str]:
    """The lines of a line code that stand together, without the code."""
    start = text.find(b"\n" + code + b"   ")
    if start < 0:
        return []
    match = _RUN_END[code].search(text, start + 1)
    assert match is not None  # entries end with a newline
    return [line[5:] for line in text[start + 1 : match.start()].decode().split("\n")]


def _comments(text: bytes, start: int, end: int) -> dict[str, str]:
    """The used topics that the entry has: their blocks, each with its label, joined as UniProt's exports join them."""
    blocks: dict[str, list[str]] = {}
    # To the end of the last comment line, which starts at `end`.
    for mark in _BLOCK.finditer(text, start, _find(text, b"\n", end + 1)):
        match = _BLOCK_END.search(text, mark.end())
        assert match is not None
        topic = mark[1].decode()
        first, *further = text[mark.start(1) : match.start()].decode().split("\n")
        block = unwrap([first, *(line[2:] for line in further)])
        if len(block) > len(topic) + 1:
            blocks.setdefault(topic, []).append(block)
    return {topic: "; ".join(texts) for topic, texts in blocks.items()}


def _accession(text: bytes) -> str:
    lines = _lines(text, b"AC")
    accession = " ".join(lines).split(";")[0].strip()
    if not accession or " " in accession:
        raise RefusedError("no accession", accession, "an AC line such as 'AC   P12345;'")
    block = text.find(b"\nAC   ") + sum(len(line) + 6 for line in lines)
    if (second := text.find(b"\nAC   ", block)) >= 0:
        # A file that lost bytes between two entries would give the names of one with the sequence of the other.
        value = text[second + 1 : text.find(b"\n", second + 1)].decode("latin-1")
        raise RefusedError("two entries run into each other", value, "one AC block, and a // line after each entry")
    return accession


def _organism(text: str) -> str | None:
    # The line ends with a full stop, which in "Bacillus sp." is the name's own.
    return (text if text.endswith(" sp.") else text.removesuffix(".")) or None


def _reviewed(identity: list[str]) -> bool:
    status = identity[1].removesuffix(";") if len(identity) > 1 else ""
    if status not in _STATUS:
        raise RefusedError("unknown status", " ".join(identity), "an ID line with Reviewed; or Unreviewed;")
    return _STATUS[status]


def _existence(text: bytes) -> int | None:
    lines = _lines(text, b"PE")
    if not lines:
        return None  # releases before 2007 have none
    match = _EXISTENCE.match(lines[0])
    if match is None:
        raise RefusedError("unknown protein existence", lines[0], "a level of 1 to 5, as in 'PE   1: Evidence …'")
    return int(match[1])


def _sequence(text: bytes) -> str:
    start = text.rfind(b"\nSQ   ")
    if start < 0:
        raise RefusedError("no sequence", "", "an SQ line and the residues")
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
