"""Tables of entries: UniProt's exports, and the same columns as other programs write them.

Columns are found by name (columns.py), and the header says how the table is cut (dialect.py). Two columns are required;
what the others would say is None without them, and where a cell means nothing (cells.py).

A table that is cut at tabs is read a block of lines at a time. A block in which every row has its cells, an accession,
a sequence, and a status and a protein existence that are understood, which is nearly all, is judged by a few operations
on whole columns, and only the rows that are asked for are read: what is wrong in a row's other cells is found then. Any
other block goes row by row, and so does CSV.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from protclip.errors import DataError
from protclip.uniprot import cells
from protclip.uniprot.batch import EntryBatch, batch_of, batches_of
from protclip.uniprot.cells import MAX_NOTHING_CHARS, means_nothing, unquoted
from protclip.uniprot.csv_rows import csv_rows
from protclip.uniprot.dialect import TAB, Layout, cut_cells, read_layout
from protclip.uniprot.entry import (
    ACCESSION,
    BadEntry,
    Entry,
    RefusedError,
    checked_sequence,
    is_utf8,
    not_utf8,
)
from protclip.uniprot.gene_names import parse_gene_cells
from protclip.uniprot.protein_names import parse_name_cell
from protclip.uniprot.streams import read_line_blocks, split_lines

_PROPERTIES = (("function",), ("subcellular_location",), ("similarity", "families"))
_GENE_COLUMNS = ("gene", "gene_primary", "gene_synonym", "gene_locus", "gene_orf")
_NEWLINE = ord("\n")
_FOREIGN = -2
_CODES = range(128)
# Of bytes: letters and digits of ASCII, and what is visible of it.
_ALNUM = np.array([chr(code).isalnum() for code in _CODES] + [False] * 128)
_VISIBLE = np.array([" " < chr(code) < "\x7f" for code in _CODES] + [False] * 128)


def read_table(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The rows of a table, in its order, in constant memory.

    Behind tabs a quote is a character like any other, but round a whole cell. Else quoted cells may hold delimiters and
    line ends; where a quote is not closed, the line that it stands in is refused and reading goes on with the next.

    Args:
        stream: UTF-8.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged (entries before the damage are given first), or without the columns of
            accession and sequence, or without rows.
    """
    layout, blocks = read_layout(read_line_blocks(stream, source, "a table"), source)
    if layout.delimiter != TAB:
        yield from _csv_entries(blocks, layout, source)
        return
    for block in _tab_blocks(blocks, layout, source):
        yield from _entries(block)


def read_table_batches(stream: IO[bytes], source: str) -> Iterator[EntryBatch]:
    """The same rows as read_table, in batches that make no entry before it is asked for, where tabs cut the table.

    Raises:
        DataError: as read_table.
    """
    layout, blocks = read_layout(read_line_blocks(stream, source, "a table"), source)
    if layout.delimiter != TAB:
        yield from batches_of(_csv_entries(blocks, layout, source))
        return
    for block in _tab_blocks(blocks, layout, source):
        yield _plain_batch(block) or batch_of(_entries(block))


def _csv_entries(blocks: Iterable[bytes], layout: Layout, source: str) -> Iterator[Entry | BadEntry]:
    found = False
    for line, row in csv_rows(split_lines(blocks, layout.first_line), layout, source):
        if isinstance(row, BadEntry):
            found = True
            yield row
        elif row != layout.header:
            found = True
            yield _entry_or_bad(row, source, line, layout)
    _require_rows(found, source)


def _require_rows(found: bool, source: str) -> None:
    if not found:
        raise DataError(f"{source}: holds no row below its header.")


def _entry_or_bad(row: Sequence[str], source: str, line: int, layout: Layout) -> Entry | BadEntry:
    accession = None
    try:
        if len(row) > layout.index["accession"]:
            cell = row[layout.index["accession"]]
            accession = cell if ACCESSION.fullmatch(cell) and not means_nothing(cell) else None
        if len(row) != layout.width:
            hint = "; in R write it with row.names=FALSE" if len(row) == layout.width + 1 and row[0].isdigit() else ""
            raise RefusedError(
                "wrong number of cells",
                f"{len(row)} cell{'s'[: len(row) != 1]}",
                f"{layout.width}, as in the header{hint}",
            )
        return _entry(row, accession, layout)
    except RefusedError as refusal:
        return refusal.at(source=source, line=line, accession=accession)


def _entry(row: Sequence[str], accession: str | None, layout: Layout) -> Entry:
    """The entry of a row whose cells have no blanks round them."""

    def cell(field: str) -> str:
        return row[layout.index[field]] if field in layout.index else ""

    if accession is None:
        raise RefusedError("no accession", cell("accession"), "an accession such as P12345")
    reviewed, existence = cells.status(cell("reviewed")), cells.existence(cell("existence"))
    sequence = _sequence(cell("sequence"), cells.integer(cell("length"), "unreadable length", "147"))
    names = parse_name_cell(cells.text_or_none(cell("name")) or "")
    families = cells.text_or_none(cell("families"))
    similarity = f"SIMILARITY: Belongs to the {families}." if families else None
    return Entry(
        accession=accession,
        entry_name=cells.text_or_none(cell("entry_name")),
        reviewed=reviewed,
        sequence=sequence,
        existence=existence,
        name=names.name,
        function=cells.text_or_none(cell("function")),
        subcellular_location=cells.text_or_none(cell("subcellular_location")),
        similarity=cells.text_or_none(cell("similarity")) or similarity,
        display_name=names.display_name,
        organism=cells.text_or_none(cell("organism")),
        organism_id=cells.taxon(cell("organism_id")),
        ec=cells.ec_numbers(cell("ec")) or names.ec,
        gene=parse_gene_cells(*map(cell, _GENE_COLUMNS)),
    )


def _sequence(cell: str, length: int | None) -> str:
    """The checked sequence. NA may be two residues or nothing: they are residues where a length says so."""
    if means_nothing(cell) and len(cell) != length:
        raise RefusedError("no sequence", cell, "at least one residue; such as NA with 2 in a column Length")
    sequence = checked_sequence(cell.encode())
    if length not in (None, len(sequence)):
        raise RefusedError("length is not that of its column", f"{len(sequence)} residues", str(length))
    return sequence


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Some lines of a table that is cut at tabs, below its header."""

    text: bytes
    """Whole lines; each ends with a newline."""
    first_line: int
    layout: Layout
    source: str

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Where its tabs and newlines are."""
        return np.flatnonzero(self.data <= _NEWLINE)  # a tab is the byte before a newline

    @property
    def data(self) -> np.ndarray:
        return np.frombuffer(self.text, np.uint8)

    @functools.cached_property
    def num_lines(self) -> int:
        return int(np.count_nonzero(self.data[self.places] == _NEWLINE))


def _tab_blocks(blocks: Iterable[bytes], layout: Layout, source: str) -> Iterator[_Block]:
    line, found = layout.first_line, False
    for some in blocks:
        if some:
            text = some if some.endswith(b"\n") else some + b"\n"
            found = found or not text.isspace()
            block = _Block(text=text, first_line=line, layout=layout, source=source)
            yield block
            line += block.num_lines
    _require_rows(found, source)


def _entries(block: _Block) -> Iterator[Entry | BadEntry]:
    for number, line in split_lines([block.text], block.first_line):
        if not is_utf8(line):
            yield not_utf8(line, block.source, number)
        elif line and not line.isspace():
            row = cut_cells(line.decode(), TAB)
            if row != block.layout.header:
                yield _entry_or_bad(row, block.source, number, block.layout)


def _plain_batch(block: _Block) -> EntryBatch | None:
    """The batch of rows that are all plainly in order; None where one may not be, which ``_entry`` then finds out.

    Cells are not cut, their ends are found: only those of three columns are looked at, and those that may mean nothing.
    """
    if len(block.places) != block.num_lines * block.layout.width or not is_utf8(block.text):
        return None
    ends = block.places.reshape(block.num_lines, block.layout.width)
    if (block.data[ends[:, -1]] != _NEWLINE).any():
        return None
    return _plain_rows(_Cells(block, ends))


class _Cells:
    """The cells of a block whose rows all have theirs."""

    def __init__(self, block: _Block, ends: np.ndarray) -> None:
        self.text, self.data, self.layout, self.ends = block.text, block.data, block.layout, ends
        self.block = block
        self.row_starts = np.append(0, ends[:-1, -1] + 1)

    def column(self, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Where the cells of a column start and end."""
        i = self.layout.index[field]
        return (self.ends[:, i - 1] + 1 if i else self.row_starts), self.ends[:, i]

    def cell(self, field: str, i: int) -> str:
        starts, stops = self.column(field)
        return unquoted(self.text[starts[i] : stops[i]].decode())

    def row(self, i: int) -> list[str]:
        return cut_cells(self.text[self.row_starts[i] : self.ends[i, -1]].decode(), TAB)

    def unsure(self, field: str) -> list[int]:
        """The rows with a cell that may mean nothing, or has blanks or quotes round it."""
        starts, stops = self.column(field)
        rows = np.flatnonzero(stops > starts)
        starts, stops = starts[rows], stops[rows]
        plain = stops - starts > MAX_NOTHING_CHARS
        plain &= _ALNUM.take(self.data.take(starts))
        plain &= _VISIBLE.take(self.data.take(stops - 1))
        unsure: list[int] = rows[~plain].tolist()
        return unsure

    def filled(self, field: str) -> np.ndarray:
        """Whether the cells of a column say something."""
        starts, stops = self.column(field)
        filled = stops > starts
        for i in self.unsure(field):
            filled[i] = not means_nothing(self.cell(field, i))
        return filled

    def codes(self, field: str, parse: Callable[[str], Any], absent: int) -> np.ndarray | None:
        """What the cells of a column say, each distinct one parsed once; None where one is refused."""
        if field not in self.layout.index:
            return np.full(len(self.ends), absent, np.int8)
        codes = np.full(len(self.ends), _FOREIGN, np.int8)
        starts, stops = self.column(field)
        lengths = stops - starts
        while len(foreign := np.flatnonzero(codes == _FOREIGN)):
            first = foreign[0]
            value = self.text[starts[first] : stops[first]]
            try:
                parsed = parse(unquoted(value.decode()))
            except RefusedError:
                return None
            rows = np.flatnonzero(lengths == len(value))
            if value:
                # All stretches of the text that are as long as the value, overlapping.
                shape = (len(self.text) - len(value) + 1,)
                stretches = np.ndarray(shape, f"S{len(value)}", self.text, strides=(1,))
                rows = rows[stretches[starts[rows]] == value]
            codes[rows] = absent if parsed is None else int(parsed)
        return codes


def _plain_rows(table: _Cells) -> EntryBatch | None:
    block, layout = table.block, table.layout
    reviewed = table.codes("reviewed", cells.status, -1)
    existence = table.codes("existence", cells.existence, 0)
    if reviewed is None or existence is None:
        return None
    starts, stops = table.column("accession")
    name, odd = layout.header[layout.index["accession"]], set(table.unsure("accession"))
    may_be_name = [*odd, *np.flatnonzero(stops - starts == len(name.encode())).tolist()]
    if any(means_nothing(cell) or cell == name for cell in (table.cell("accession", i) for i in may_be_name)):
        return None  # a row without an accession, or the header once more
    if (stops == starts).any() or not table.filled("sequence").all():
        return None

    def accession(i: int) -> str:
        return table.cell("accession", i) if i in odd else block.text[starts[i] : stops[i]].decode()

    num_properties = np.ones(len(table.ends), np.int8)
    for fields in _PROPERTIES:
        present = [table.filled(field) for field in fields if field in layout.index]
        if present:
            num_properties += np.logical_or.reduce(present)
    return EntryBatch(
        reviewed=reviewed,
        existence=existence,
        num_properties=num_properties,
        accession=accession,
        entry=lambda i: _entry_or_bad(table.row(i), block.source, block.first_line + i, layout),
        bad=[],
    )
