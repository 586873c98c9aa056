"""Entries cut out of UniProt's JSON as bytes, in the memory of one, however the file puts them together.

    {"results": [{…}, {…}]}     a page of the service's answer, or all of a stream
    {…}                         an entry, or one after the other
    [{…}, {…}]                  a list of entries, as scripts save it

Each entry starts with its ``entryType``. In a string the quotes of such a key would be escaped, so it stands nowhere
else, and a damaged entry costs itself and at most its neighbour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from protclip.errors import DataError
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.streams import read_blocks

MAX_ENTRY_BYTES = 64 << 20
"""The largest entries of UniProtKB have a few MB; more without an end is another kind of file."""
ENTRY_START = re.compile(rb'\{(?=\s{0,64}"(?:entryType|primaryAccession)"\s{0,8}:)')
"""A script that trims an entry may leave out its type."""

_START_BYTES = 128  # of an entry's start, at most
_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:.*[\[:]\s*)?", re.DOTALL)
_CLOSING = re.compile(rb"\][\s}]*\Z")
_DECODER = json.JSONDecoder()


def cut_entries(stream: IO[bytes], source: str) -> Iterator[tuple[int, bytes]]:
    """(line of its start, bytes) of what stands before the first entry, and of each entry with what stands behind it.

    Raises:
        DataError: if the stream is damaged (what stands before that is given first), or an entry is too large.
    """
    buffer = bytearray()
    line, searched = 1, 0
    for block in read_blocks(stream, source):
        buffer += block
        done = 0
        while (match := ENTRY_START.search(buffer, searched)) is not None:
            yield line, bytes(buffer[done : match.start()])
            line += buffer.count(b"\n", done, match.start())
            done, searched = match.start(), match.end()
        del buffer[:done]
        searched = max(searched - done, len(buffer) - _START_BYTES)  # a start may be cut by the block's end
        if len(buffer) > MAX_ENTRY_BYTES:
            raise DataError(
                f"{source}: no end of an entry in {MAX_ENTRY_BYTES >> 20} MB from line {line}; is this UniProt's JSON?"
            )
    yield line, bytes(buffer)


def without_head(text: bytes) -> tuple[bytes, bytes]:
    """What stands before the first entry, and the rest; a text without one is all rest."""
    match = ENTRY_START.search(text)
    return (text[: match.start()], text[match.start() :]) if match else (b"", text)


def opens_list(head: bytes) -> bool:
    """Whether what stands before the first entry opens a list of them."""
    return head.rstrip().endswith(b"[")


def refuse_cut(tail: bytes, source: str) -> None:
    """Raise where a list of entries has no end.

    Raises:
        DataError: saying so.
    """
    if _CLOSING.search(tail) is None:
        raise DataError(f"{source}: the file ends before its list of entries does: it was cut short. Fetch it again.")


def between_entries(text: bytes, source: str, line: int, *, is_head: bool) -> Iterator[BadEntry]:
    """What stands before or behind an entry and should not: most likely another one whose start is damaged."""
    if is_head:
        match = _OPENING.match(text)
        assert match is not None
        rest = text[match.end() :]
    else:
        rest = text.lstrip(b" \t\r\n,")
        rest = b"" if rest.startswith((b"]", b"}")) else rest  # the list ends; another may begin
    if rest:
        value = rest.decode(errors="replace")
        refusal = RefusedError("text between entries", value, "a JSON object, an entry of UniProtKB")
        yield refusal.at(source=source, line=line, accession=None)


def parse_object(text: bytes) -> tuple[Any, bytes]:
    """The JSON value that a text starts with, and what stands behind it.

    Raises:
        RefusedError: if it starts with none, or the value holds characters that are none.
    """
    # What stands behind may be damaged.
    decoded = text.decode(errors="surrogateescape").lstrip("\ufeff \t\r\n")
    try:
        value, end = _DECODER.raw_decode(decoded)
        decoded[:end].encode()
        if "\\ud" in decoded[:end].lower():  # may be half of a pair, which no file can be written with
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise RefusedError("not UTF-8", text.decode(errors="replace"), "UTF-8 text without lone surrogates") from None
    except (ValueError, RecursionError) as error:
        raise RefusedError("not JSON", text.decode(errors="replace"), f"a JSON object ({error})") from None
    return value, decoded[end:].encode(errors="surrogateescape")
