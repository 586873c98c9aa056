"""How a table is written: where its header is, what its cells are cut by, and which columns it has.

The header decides, not the file's name: the delimiter is the one that cuts out of it the two columns that every table
must have. Behind tabs a quote is a character like any other, as in UniProt's exports; behind the other delimiters cells
are quoted as in CSV. Lines above the header that are empty or begin with ``#``, and Excel's ``sep=;``, are passed over.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from protclip.errors import DataError
from protclip.uniprot.cells import unquoted
from protclip.uniprot.columns import COLUMNS, find_columns, nearest
from protclip.uniprot.streams import MAX_LINE_BYTES

TAB = "\t"
_DELIMITERS = (TAB, ",", ";", "|")
_REQUIRED = ("accession", "sequence")
_SKIPPED = re.compile(rb'\s*(?:"?#.*)?|"?sep=."?\s*', re.IGNORECASE)
_SHOWN_BYTES = 1000
_KINDS = (
    (re.compile(rb"\s*[{\[]"), "JSON; name JSON lines .jsonl"),
    (re.compile(rb"[^\n]*\0"), "binary data"),
    (re.compile(rb"\Z"), "empty, or comments alone"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What the header of a table says."""

    header: list[str]
    """Names of the columns."""
    index: dict[str, int]
    """Place of each field of COLUMNS; an absent one is not there."""
    delimiter: str
    first_line: int
    """Line of the first row, from 1."""

    @property
    def width(self) -> int:
        return len(self.header)

    @property
    def header_line(self) -> bytes:
        """A header that gives this layout, where tabs cut the table."""
        return TAB.join(self.header).encode() + b"\n"


def read_layout(blocks: Iterator[bytes], source: str) -> tuple[Layout, Iterator[bytes]]:
    """The layout of a table, and the rows below its header.

    Args:
        blocks: of the file, which may end anywhere; those of the rows end where these do.
        source: the name for messages.

    Raises:
        DataError: if there is no header with the columns of accession and sequence.
    """
    found, rows = find_layout(blocks)
    if isinstance(found, bytes):
        raise _no_header(found, source)
    return found, rows


def find_layout(blocks: Iterator[bytes]) -> tuple[Layout | bytes, Iterator[bytes]]:
    """The layout of a table and the rows below its header; or the line that should be the header and is none."""
    start, place, number = b"", 0, 0
    commented: Layout | None = None
    while True:
        end = start.find(b"\n", place) + 1
        if not end and (block := next(blocks, b"")):
            start, place = start[place:] + block, 0
            if len(start) > MAX_LINE_BYTES:
                return start[:_SHOWN_BYTES], blocks
            continue
        line, begin, place = start[place : end or None], place, end or len(start)
        number += 1
        found = _layout_of_header(line, number + 1)
        if _SKIPPED.fullmatch(line.rstrip(b"\n")) and line:
            commented = found or commented
        elif found is not None:
            return found, chain([start[place:]], blocks)
        elif commented is not None:
            return replace(commented, first_line=number), chain([start[begin:]], blocks)
        else:
            return line, blocks


def _layout_of_header(line: bytes, first_line: int) -> Layout | None:
    """The layout that a line is the header of, where the first row is in line ``first_line``; None if it is none."""
    for delimiter in _DELIMITERS:
        header = _cells(line, delimiter)
        index = find_columns(header)
        if all(field in index for field in _REQUIRED):
            header[0] = header[0].lstrip("# ")
            return Layout(header=header, index=index, delimiter=delimiter, first_line=first_line)
    return None


def cut_cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line, without the blanks round them.

    Raises:
        csv.Error: for a quote that is not closed, where there is quoting.
    """
    if delimiter != TAB:
        return [cell.strip() for cell in next(csv_reader(iter([line]), delimiter), [])]
    cells = line.split(TAB)
    return [unquoted(cell) for cell in cells] if '"' in line else [cell.strip() for cell in cells]


def csv_reader(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """The rows of lines with quoting."""
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def _cells(line: bytes, delimiter: str) -> list[str]:
    try:
        return cut_cells(line.decode(errors="replace").rstrip("\n"), delimiter)
    except csv.Error:
        return []


def _no_header(line: bytes, source: str) -> DataError:
    for pattern, kind in _KINDS:
        if pattern.match(line):
            return DataError(f"{source}: is no table but {kind}.")
    headers = (_cells(line, delimiter) for delimiter in _DELIMITERS)
    header = max(headers, key=lambda header: (len(find_columns(header)), len(header)))
    index = find_columns(header)
    missing = next(field for field in _REQUIRED if field not in index)
    near = nearest(header, missing)
    return DataError(
        f"{source}: no column {' or '.join(map(repr, COLUMNS[missing]))}"
        + (f"; did you mean {near!r}? Rename it" if near else "")
        + f"; its first line starts with {line.decode(errors='replace').strip()[:100]!r}. Export the columns Entry and "
        "Sequence, and with them Reviewed, Protein names, Gene Names, Organism, Organism (ID), Protein existence, EC "
        "number, Function [CC], Subcellular location [CC], Sequence similarities; they are cut at tabs, or as CSV at "
        ", ; or |."
    )
