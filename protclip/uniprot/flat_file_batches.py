"""UniProtKB flat files in batches that leave nearly all entries unread.

Of TrEMBL, fewer than one entry in a hundred is kept by the sampling, and to read an entry costs ten times what to
decompress it does. So one pass over many entries picks out what the sampling decides on and what shows that an entry is
plainly in order, which is that each of these stands in it once, the comments aside, and in this order:

    ID   Q00009_9TEST            Unreviewed;         3 AA.
    AC   Q00009;
    CC   -!- SIMILARITY: Belongs…
    PE   4: Predicted;
    SQ   SEQUENCE   3 AA;  354 MW;  72C336F000000000 CRC64;
         M

Such an entry is read when it is asked for; only then are its letters, lengths and checksum looked at, and it may turn
out bad. All others are read at once, by ``read_flat_file``: what that refuses for the entry's structure is refused.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import numpy as np

from protclip.uniprot.batch import Batch
from protclip.uniprot.entry import BadEntry, Entry, is_utf8
from protclip.uniprot.flat_file import MAX_ENTRY_BYTES, STATUS, TOPICS, no_entry, no_terminator, read_flat_file
from protclip.uniprot.streams import read_blocks

_END = b"\n//\n"
_TOPIC = b"CC   -!- (?:" + "|".join(TOPICS).encode() + b"):"
_STATUS = {name.encode(): reviewed for name, reviewed in STATUS.items()}
# Each part starts with a newline. One that is not as it should be is found all the same, in a shape that _PLAIN lacks:
# a topic without its space where no text follows in its line, a terminator with a newline where no ID line follows.
_PART = re.compile(
    rb"\n(?:ID   [^\n]*|AC   [^\n]*|PE   [^\n]*|SQ   [^\n]*(?:\n     [A-Z])?|" + _TOPIC + rb"(?: (?=[!-~]))?"
    rb"|//(?:(?=\n(?:ID   |\Z))|[ \t\r]*\n))"
)
_PLAIN = re.compile(
    rb"\nID   [!-~]+ +(" + b"|".join(_STATUS) + rb"); [^\n]*"
    rb"\nAC   (\w+);[^\n]*"
    rb"((?:\n" + _TOPIC + rb" )*)"
    rb"\nPE   ([1-5]):[^\n]*"
    rb"\nSQ   SEQUENCE +\d+ AA; +\d+ MW; +[0-9A-F]{16} CRC64;[^\n]*\n     [A-Z]"
)


def read_flat_file_batches(stream: IO[bytes], source: str) -> Iterator[Batch]:
    """The entries of read_flat_file, in batches that read none before it is asked for.

    Raises:
        DataError: as read_flat_file.
    """
    found = False
    for line, text in _cut_blocks(stream, source):
        if not text.isspace():
            found = True
            yield _batch(text, source, line)
    if not found:
        raise no_entry(source)


def _cut_blocks(stream: IO[bytes], source: str) -> Iterator[tuple[int, bytes]]:
    """The stream in blocks of whole entries, with the numbers of their first lines."""
    line, text = 1, b""
    for block in read_blocks(stream, source):
        text += block
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        # Where terminators are missing or odd, an ID line starts an entry.
        end = text.rfind(_END) + len(_END)
        if end < len(_END):
            end = text.rfind(b"\nID   ") + 1
        if end:
            whole, text = text[:end], text[end:]
            yield line, whole
            line += _num_lines(whole)
        if len(text) > MAX_ENTRY_BYTES:
            raise no_terminator(source, line)
    if text:
        yield line, text


def _num_lines(text: bytes) -> int:
    # Three times as fast as bytes.count, which is made for what is rare.
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def _batch(text: bytes, source: str, line: int) -> Batch:
    """The batch of a block, which starts at this line."""
    cut = functools.cache(lambda: text.removesuffix(_END).split(_END))
    plain = list(map(_PLAIN.fullmatch, _shape(text).removesuffix(_END[:-1]).split(_END[:-1])))
    if None in plain:
        plain = [_PLAIN.fullmatch(_shape(piece)) for piece in cut()]
    reviewed: list[bool | None] = []
    existence: list[int | None] = []
    num_properties: list[int] = []
    accessions: list[str] = []
    entries: list[Entry | int] = []  # or the number of the text that it is to be read from
    bad: list[BadEntry] = []
    for i, match in enumerate(plain):
        if match:
            status, accession, comments, level = match.groups()
            reviewed.append(_STATUS[status])
            existence.append(int(level))
            num_properties.append(_num_properties(comments))
            accessions.append(accession.decode())
            entries.append(i)
            continue
        for entry in _read(cut(), i, source, line):
            if isinstance(entry, BadEntry):
                bad.append(entry)
            else:
                reviewed.append(entry.reviewed)
                existence.append(entry.existence)
                num_properties.append(entry.num_properties)
                accessions.append(entry.accession)
                entries.append(entry)

    def entry_at(i: int) -> Entry | BadEntry:
        found = entries[i]
        return next(_read(cut(), found, source, line)) if isinstance(found, int) else found

    return Batch(
        reviewed=reviewed,
        existence=existence,
        num_properties=num_properties,
        accession=accessions.__getitem__,
        entry=entry_at,
        bad=bad,
    )


def _shape(text: bytes) -> bytes:
    """The parts that stand in a text; nothing where it is no text or does not start as an entry does."""
    return b"".join(_PART.findall(b"\n" + text)) if text.startswith(b"ID   ") and is_utf8(text) else b""


@functools.lru_cache(1024)
def _num_properties(comments: bytes) -> int:
    return 1 + sum(topic.encode() in comments for topic in TOPICS)


def _read(texts: list[bytes], i: int, source: str, line: int) -> Iterator[Entry | BadEntry]:
    """What read_flat_file gives for one text of a block that starts at this line."""
    if texts[i].isspace() or not texts[i]:
        return
    for entry in read_flat_file(io.BytesIO(texts[i] + _END), source):
        if isinstance(entry, BadEntry):
            before = sum(_num_lines(text + _END) for text in texts[:i])
            yield replace(entry, line=line + before + entry.line - 1)
        else:
            yield entry
