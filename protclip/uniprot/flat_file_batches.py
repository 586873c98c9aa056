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
from itertools import accumulate
from typing import IO

from protclip.uniprot.batch import EntryBatch, columns
from protclip.uniprot.comments import TOPICS
from protclip.uniprot.entry import BadEntry, Entry, is_utf8
from protclip.uniprot.flat_file import MAX_ENTRY_BYTES, STATUS, no_entry, no_terminator, read_flat_file
from protclip.uniprot.streams import num_lines, read_blocks

_END = b"\n//\n"
_TOPIC = b"CC   -!- (?:" + "|".join(TOPICS).encode() + b"):"
_STATUS = {name.encode(): reviewed for name, reviewed in STATUS.items()}
# Each part starts with a newline. One that is not as it should be is found all the same, in a shape that _PLAIN lacks:
# a topic without its space where no text follows in its line, a terminator with a newline where no ID line follows.
_PART = re.compile(
    rb"\n(?:ID   [^\n]*|AC   [^\n]*|PE   [^\n]*|SQ   [^\n]*(?:\n     [A-Z])?|" + _TOPIC + rb"(?: (?=[!-~]))?"
    rb"|//(?:(?=\n(?:ID   |\Z))|[ \t]*\n))"
)
_PLAIN = re.compile(
    rb"\nID   [!-~]+ +(" + b"|".join(_STATUS) + rb"); [^\n]*"
    rb"\nAC   (\w+);[^\n]*"
    rb"((?:\n" + _TOPIC + rb" )*)"
    rb"\nPE   ([1-5]):[^\n]*"
    rb"\nSQ   SEQUENCE +\d+ AA; +\d+ MW; +[0-9A-F]{16} CRC64;[^\n]*\n     [A-Z]"
)


def read_flat_file_batches(stream: IO[bytes], source: str) -> Iterator[EntryBatch]:
    """The entries of read_flat_file, in batches that read none before it is asked for.

    Raises:
        DataError: as read_flat_file.
    """
    found = False
    for line, text in _cut_blocks(stream, source):
        batch = _batch(text, source, line)
        found = found or len(batch.reviewed) > 0 or len(batch.bad) > 0
        yield batch
    if not found:
        raise no_entry(source)


def _cut_blocks(stream: IO[bytes], source: str) -> Iterator[tuple[int, bytes]]:
    """The stream in blocks of whole entries, each behind a newline, with the numbers of their first lines."""
    line, rest = 1, b""
    for read in read_blocks(stream, source):
        block = read
        end = block.rfind(_END) + len(_END)
        if end < len(_END):
            block = rest + block
            rest = b""
            # Where terminators are missing or odd, an ID line starts an entry.
            end = block.rfind(_END) + len(_END) if _END in block else block.rfind(b"\nID   ") + 1
        if end:
            whole = b"".join((b"\n", rest, memoryview(block)[:end]))
            yield line, whole
            line += num_lines(whole) - 1
            rest = b""
        rest += block[end:]
        if len(rest) > MAX_ENTRY_BYTES:
            raise no_terminator(source, line)
    if rest:
        yield line, b"\n" + rest


def _batch(text: bytes, source: str, line: int) -> EntryBatch:
    """The batch of a block, whose first entry starts at this line."""
    cut = functools.cache(lambda: text[1:].removesuffix(_END).split(_END))
    # The lines that the texts start at.
    starts = functools.cache(lambda: list(accumulate((num_lines(one + _END) for one in cut()), initial=line)))
    plain = list(map(_PLAIN.fullmatch, _shape(text).removesuffix(_END[:-1]).split(_END[:-1])))
    if None in plain:
        plain = [_PLAIN.fullmatch(_shape(b"\n" + piece)) for piece in cut()]
    judged: list[tuple[bool | None, int | None, int]] = []
    entries: list[Entry | int] = []  # or the number of the text that it is to be read from
    bad: list[BadEntry] = []
    for i, match in enumerate(plain):
        if match:
            judged.append(_judged(*match.group(1, 4, 3)))
            entries.append(i)
            continue
        for entry in _read(cut()[i], source, starts()[i]):
            if isinstance(entry, BadEntry):
                bad.append(entry)
            else:
                judged.append((entry.reviewed, entry.existence, entry.num_properties))
                entries.append(entry)

    def accession_at(i: int) -> str:
        found = entries[i]
        if isinstance(found, Entry):
            return found.accession
        match = plain[found]
        assert match is not None
        return match[2].decode()

    def entry_at(i: int) -> Entry | BadEntry:
        found = entries[i]
        return found if isinstance(found, Entry) else next(_read(cut()[found], source, starts()[found]))

    return EntryBatch(
        **columns(judged),
        accession=accession_at,
        entry=entry_at,
        bad=bad,
    )


def _shape(text: bytes) -> bytes:
    """The parts that stand in a text; nothing where it is no text or does not start as an entry does."""
    return b"".join(_PART.findall(text)) if text.startswith(b"\nID   ") and is_utf8(text) else b""


@functools.lru_cache(1024)
def _judged(status: bytes, level: bytes, comments: bytes) -> tuple[bool, int, int]:
    """Reviewed, existence and number of properties of a plain entry."""
    return _STATUS[status], int(level), 1 + sum(topic.encode() in comments for topic in TOPICS)


def _read(text: bytes, source: str, line: int) -> Iterator[Entry | BadEntry]:
    """What read_flat_file gives for one text of a block, which starts at this line."""
    if text.isspace() or not text:
        return
    for entry in read_flat_file(io.BytesIO(text + _END), source):
        yield replace(entry, line=line + entry.line - 1) if isinstance(entry, BadEntry) else entry
