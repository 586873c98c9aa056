"""UniProt's exports as tables: TSV, which knows no quoting, and CSV, which does.

Columns are found by name, in the spelling of any release of the website or as the REST API calls its fields:
https://www.uniprot.org/help/return_fields. Two are required; what the others would say is None without them.

A TSV is read a block of lines at a time. A block in which every row has its cells, an accession, a sequence, and a
status and a protein existence that are known, which is nearly all, is judged by a few operations on whole columns, and
only the rows that are asked for are read: what is wrong in a row's other cells is found then. Any other block goes row
by row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from protclip.errors import DataError
from protclip.uniprot.batch import Batch, batch_of
from protclip.uniprot.csv_rows import BYTE_ORDER_MARK, csv_rows
from protclip.uniprot.entry import (
    ACCESSION,
    BadEntry,
    Entry,
    RefusedError,
    checked_sequence,
    is_utf8,
    not_utf8,
)
from protclip.uniprot.protein_names import parse_name_cell
from protclip.uniprot.streams import read_line_blocks

COLUMNS = {
    "accession": ("Entry", "accession"),
    "entry_name": ("Entry name", "id"),
    "reviewed": ("Reviewed", "Status"),
    "name": ("Protein names", "protein_name"),
    "organism": ("Organism", "organism_name"),
    "organism_id": ("Organism (ID)", "Organism ID", "organism_id", "Taxonomic ID"),
    "sequence": ("Sequence",),
    "length": ("Length",),
    "existence": ("Protein existence", "protein_existence"),
    "ec": ("EC number", "ec"),
    "function": ("Function [CC]", "cc_function"),
    "subcellular_location": ("Subcellular location [CC]", "cc_subcellular_location"),
    "similarity": ("Sequence similarities", "cc_similarity"),
    "families": ("Protein families", "protein_families"),
}
"""The spellings of each column; case does not matter."""

_FIELDS = {spelling.lower(): field for field, spellings in COLUMNS.items() for spelling in spellings}
_STATUS = {b"reviewed": True, b"unreviewed": False}
_EXISTENCE = {
    b"Evidence at protein level": 1,
    b"Evidence at transcript level": 2,
    b"Inferred from homology": 3,
    b"Predicted": 4,
    b"Uncertain": 5,
}
_PROPERTIES = (("function",), ("subcellular_location",), ("similarity", "families"))
_NEWLINE = ord("\n")
_FOREIGN = -2
_TAXON = re.compile(r"(\d{1,9})(?:\.0)?")  # pandas writes integers as 9606.0 in a column with gaps


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Where the columns of a table stand."""

    header: list[str]
    index: dict[str, int]
    """By field; an absent column is not there."""

    @property
    def width(self) -> int:
        return len(self.header)


def read_tsv(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The rows of a tab-separated export, in its order, in constant memory; a quote is a character like any other.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged (entries before the damage are given first), or without the columns of
            accession and sequence, or without rows.
    """
    for block in _tsv_blocks(stream, source):
        yield from _entries(block)


def read_tsv_batches(stream: IO[bytes], source: str) -> Iterator[Batch]:
    """The same rows as read_tsv, in batches that make no entry before it is asked for.

    Raises:
        DataError: as read_tsv.
    """
    for block in _tsv_blocks(stream, source):
        yield _plain_batch(block) or batch_of(_entries(block))


def read_csv(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The rows of a comma-separated export, whose quoted cells may hold commas and line ends.

    Where a quote is not closed, the line that it stands in is refused and reading goes on with the next.

    Raises:
        DataError: as read_tsv.
    """
    layout: _Layout | None = None
    found = False
    for line, row in csv_rows(stream, source):
        if isinstance(row, BadEntry):
            if layout is None:
                raise DataError(f"{source}, line {line}: the header cannot be read: {row.reason}: {row.value!r}.")
            yield row
        elif layout is None:
            layout = _layout(row, source)
        elif row != layout.header:
            found = True
            yield _entry_or_bad(row, source, line, layout)
    _require_rows(found, layout, source)


def _layout(header: list[str], source: str) -> _Layout:
    index: dict[str, int] = {}
    for i, name in enumerate(header):
        if field := _FIELDS.get(name.strip().lower()):
            index.setdefault(field, i)
    for field in ("accession", "sequence"):
        if field not in index:
            raise DataError(
                f"{source}: no column {' or '.join(map(repr, COLUMNS[field]))}; its first line starts with "
                f"{', '.join(header)[:100]!r}. Export the columns Entry and Sequence, and with them Reviewed, "
                "Protein names, Organism, Organism (ID), Protein existence, EC number, Function [CC], "
                "Subcellular location [CC], Sequence similarities."
            )
    return _Layout(header=header, index=index)


def _require_rows(found: bool, layout: _Layout | None, source: str) -> None:
    if layout is None:
        _layout([], source)
    if not found:
        raise DataError(f"{source}: holds no row below its header.")


def _entry_or_bad(row: Sequence[str], source: str, line: int, layout: _Layout) -> Entry | BadEntry:
    accession = None
    try:
        if len(row) > layout.index["accession"] and ACCESSION.fullmatch(row[layout.index["accession"]]):
            accession = row[layout.index["accession"]]
        if len(row) != layout.width:
            raise RefusedError("wrong number of cells", f"{len(row)} cells", f"{layout.width}, as in the header")
        return _entry(row, layout)
    except RefusedError as refusal:
        return refusal.at(source=source, line=line, accession=accession)


def _entry(row: Sequence[str], layout: _Layout) -> Entry:
    cells = {field: row[i] for field, i in layout.index.items()}
    if not ACCESSION.fullmatch(cells["accession"]):
        raise RefusedError("no accession", cells["accession"], "an accession such as P12345")
    if "reviewed" in cells and cells["reviewed"].encode() not in _STATUS:
        raise RefusedError("unknown status", cells["reviewed"], "reviewed or unreviewed")
    if "existence" in cells and cells["existence"].encode() not in _EXISTENCE:
        allowed = ", ".join(level.decode() for level in _EXISTENCE)
        raise RefusedError("unknown protein existence", cells["existence"], allowed)
    sequence = checked_sequence(cells["sequence"].encode())
    if cells.get("length", str(len(sequence))) != str(len(sequence)):
        raise RefusedError("length is not that of its column", f"{len(sequence)} residues", cells["length"])
    taxon = _TAXON.fullmatch(cells.get("organism_id") or "0")
    if taxon is None:
        raise RefusedError("unreadable taxonomy identifier", cells["organism_id"], "a number such as 9606, or nothing")
    names = parse_name_cell(cells.get("name", ""))
    families = cells.get("families")
    return Entry(
        accession=cells["accession"],
        entry_name=cells.get("entry_name") or None,
        reviewed=_STATUS[cells["reviewed"].encode()] if "reviewed" in cells else None,
        sequence=sequence,
        existence=_EXISTENCE[cells["existence"].encode()] if "existence" in cells else None,
        name=names.name,
        function=cells.get("function") or None,
        subcellular_location=cells.get("subcellular_location") or None,
        similarity=cells.get("similarity") or (f"SIMILARITY: Belongs to the {families}." if families else None),
        display_name=names.display_name,
        organism=cells.get("organism") or None,
        organism_id=int(taxon[1]) if cells.get("organism_id") else None,
        ec=tuple(dict.fromkeys(re.findall(r"[^;\s]+", cells["ec"]))) if cells.get("ec") else names.ec,
    )


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Some lines of a TSV below its header."""

    text: bytes
    """Whole lines; each ends with a newline."""
    first_line: int
    layout: _Layout
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


def _tsv_blocks(stream: IO[bytes], source: str) -> Iterator[_Block]:
    layout: _Layout | None = None
    line, found = 1, False
    for some in read_line_blocks(stream, source, "a TSV file"):
        text = some if some.endswith(b"\n") else some + b"\n"
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        if layout is None:
            head, _, text = text.partition(b"\n")
            layout = _layout(head.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").split("\t"), source)
            line += 1
        if text:
            found = found or not text.isspace()
            block = _Block(text=text, first_line=line, layout=layout, source=source)
            yield block
            line += block.num_lines
    _require_rows(found, layout, source)


def _entries(block: _Block) -> Iterator[Entry | BadEntry]:
    for number, row in enumerate(block.text.removesuffix(b"\n").split(b"\n"), block.first_line):
        try:
            cells = row.decode().split("\t")
        except UnicodeDecodeError:
            yield not_utf8(row, block.source, number)
            continue
        if row and not row.isspace() and cells != block.layout.header:
            yield _entry_or_bad(cells, block.source, number, block.layout)


def _plain_batch(block: _Block) -> Batch | None:
    """The batch of rows that are all plainly in order; None where one may not be, which ``_entry`` then finds out.

    Cells are not cut, their ends are found: only those of three columns are looked at.
    """
    text, layout, number = block.text, block.layout, block.num_lines
    if len(block.places) != number * layout.width or not is_utf8(text):
        return None
    ends = block.places.reshape(number, layout.width)
    if (block.data[ends[:, -1]] != _NEWLINE).any():
        return None
    row_starts = np.append(0, ends[:-1, -1] + 1)

    def column(field: str) -> tuple[np.ndarray, np.ndarray]:
        """Where the cells of a column start and end."""
        i = layout.index[field]
        return (ends[:, i - 1] + 1 if i else row_starts), ends[:, i]

    def filled(field: str) -> np.ndarray:
        starts, stops = column(field)
        return stops > starts

    def coded(field: str, values: Mapping[bytes, int], absent: int) -> np.ndarray:
        if field not in layout.index:
            return np.full(number, absent, np.int8)
        starts, stops = column(field)
        lengths = stops - starts
        codes = np.full(number, _FOREIGN, np.int8)
        for value, code in values.items():
            rows = np.flatnonzero(lengths == len(value))
            # All stretches of the text that are as long as the value, overlapping.
            stretches = np.ndarray((max(0, len(text) - len(value) + 1),), f"S{len(value)}", text, strides=(1,))
            codes[rows[stretches[starts[rows]] == value]] = code
        return codes

    reviewed, existence = coded("reviewed", _STATUS, -1), coded("existence", _EXISTENCE, 0)
    header = coded("accession", {layout.header[layout.index["accession"]].encode(): 1}, 0)
    if (
        (reviewed == _FOREIGN).any()
        or (existence == _FOREIGN).any()
        or not (filled("accession") & filled("sequence")).all()
        or (header != _FOREIGN).any()  # may be the header once more
    ):
        return None
    num_properties = np.ones(number, np.int8)
    for fields in _PROPERTIES:
        present = [filled(field) for field in fields if field in layout.index]
        if present:
            num_properties += np.logical_or.reduce(present)

    def row(i: int) -> list[str]:
        return text[row_starts[i] : ends[i, -1]].decode().split("\t")

    accession_starts, accession_ends = column("accession")
    return Batch(
        reviewed=reviewed,
        existence=existence,
        num_properties=num_properties,
        accession=lambda i: text[accession_starts[i] : accession_ends[i]].decode(),
        entry=lambda i: _entry_or_bad(row(i), block.source, block.first_line + i, layout),
        bad=[],
    )
