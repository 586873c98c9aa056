"""A file of entries cut into blocks that are read apart from each other, however large the file.

A compressed file can only be read from its start, by one process. That process does nothing else than decompress and
cut; reading the entries, which takes several times as long, is done on the blocks, anywhere. Where the cuts fall is a
function of the content alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from protclip.errors import DataError
from protclip.uniprot.batch import EntryBatch
from protclip.uniprot.dialect import TAB, read_layout
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.fasta import read_fasta
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.formats import READERS, Reader, ending_of, open_batches, read_batches
from protclip.uniprot.json_entries import read_json
from protclip.uniprot.json_lines import read_json_lines
from protclip.uniprot.json_objects import ENTRY_START, opens_list, refuse_cut, without_head
from protclip.uniprot.streams import num_lines, open_stream, read_blocks
from protclip.uniprot.table import read_table

BLOCK_BYTES = 16 << 20
"""Decompressed bytes of a block, at most, but for an entry that is larger."""
MAX_ENTRY_BYTES = 64 << 20
"""More without an end of an entry is another kind of file."""

_END_BYTES = 128  # an end of an entry, at most

# Reader → (what every end of an entry starts with, the whole end). A file of another kind is one block.
_ENDS: dict[Reader, tuple[bytes, re.Pattern[bytes]]] = {
    read_flat_file: (b"\n//", re.compile(rb"\n//[ \t]*\n")),
    read_fasta: (b"\n>", re.compile(rb"\n(?=>)")),
    read_table: (b"\n", re.compile(rb"\n")),
    read_json_lines: (b"\n", re.compile(rb"\n")),
    read_json: (b"{", re.compile(rb"(?=" + ENTRY_START.pattern + rb")")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Whole entries that stand together in a file."""

    path: str
    ending: str
    """That tells what the file is; see ``formats.ending_of``."""
    ordinal: int
    """From 0, in the order of the file."""
    line: int
    """Line of the decompressed file that the first line of the data is, from 1."""
    data: bytes | None
    """None stands for the whole file, of a kind that is not cut. Those of a table all start with its header, in which
    case line counts as if it stood right before the block's rows."""


def cut_blocks(path: str) -> Iterator[Block]:
    """The blocks of a file, in the memory of one.

    Raises:
        DataError: if the file cannot be read to its end, or has no ends of entries.
    """
    ending = ending_of(path)
    reader = READERS[ending]
    if reader not in _ENDS:
        yield Block(path=path, ending=ending, ordinal=0, line=1, data=None)
        return
    mark, end = _ENDS[reader]
    pieces: list[bytes] = []
    num_bytes = 0
    header = b""
    is_list = False  # of JSON, whose end is missed where the file was cut short
    ordinal, line = 0, 1
    with open_stream(path) as stream:
        read = read_blocks(stream, path)
        if reader is read_table:
            layout, read = read_layout(read, path)
            if layout.delimiter != TAB:  # a quoted cell may hold a line end
                yield Block(path=path, ending=ending, ordinal=0, line=1, data=None)
                return
            header, line = layout.header_line, layout.first_line
        for piece in read:
            pieces.append(piece)
            num_bytes += len(piece)
            while num_bytes > BLOCK_BYTES + _END_BYTES:
                text = b"".join(pieces)
                cut = _last_end(text, mark, end)
                pieces = [text[cut:]]
                num_bytes -= cut
                if not cut:
                    break
                if ordinal == 0 and reader is read_json:
                    head, text = without_head(text)
                    is_list, line, cut = opens_list(head), line + num_lines(head), cut - len(head)
                line -= bool(header)
                data = b"".join((header, memoryview(text)[:cut]))
                del text  # a block is large
                yield Block(path=path, ending=ending, ordinal=ordinal, line=line, data=data)
                ordinal, line = ordinal + 1, line + num_lines(data)
            if num_bytes > BLOCK_BYTES + MAX_ENTRY_BYTES:
                raise DataError(f"{path}: no end of an entry in {MAX_ENTRY_BYTES >> 20} MB from line {line}.")
    rest = b"".join(pieces)
    if is_list:
        refuse_cut(rest, path)
    if ordinal == 0 or rest.strip():
        yield Block(path=path, ending=ending, ordinal=ordinal, line=line - bool(header), data=header + rest)


def read_block(block: Block) -> Iterator[EntryBatch]:
    """The entries of a block in batches; lines are counted from the start of the file.

    Raises:
        DataError: as the reader of the file.
    """
    if block.data is None:
        yield from open_batches(block.path)
        return
    for batch in read_batches(io.BytesIO(block.data), block.path, block.ending):
        yield replace(
            batch,
            entry=partial(_entry_in_file, batch, block),
            bad=[_line_in_file(bad, block) for bad in batch.bad],
        )


def _entry_in_file(batch: EntryBatch, block: Block, i: int) -> Entry | BadEntry:
    entry = batch.entry(i)
    return _line_in_file(entry, block) if isinstance(entry, BadEntry) else entry


def _line_in_file(bad: BadEntry, block: Block) -> BadEntry:
    return replace(bad, line=bad.line + block.line - 1)


def _last_end(buffer: bytes, mark: bytes, end: re.Pattern[bytes]) -> int:
    """Where the last entry ends that a block has room for; else where the first one ends; else 0."""
    start = BLOCK_BYTES
    while (start := buffer.rfind(mark, 0, start)) >= 0:
        match = end.match(buffer, start)
        if match is not None and 0 < match.end() <= BLOCK_BYTES:
            return match.end()
    match = end.search(buffer, max(0, BLOCK_BYTES - _END_BYTES))
    return match.end() if match is not None else 0
