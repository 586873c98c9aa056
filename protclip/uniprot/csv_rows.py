"""Rows of a CSV file whose quoted cells may hold delimiters and line ends, and whose quotes may be damaged."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator

from protclip.uniprot.dialect import Layout, csv_reader
from protclip.uniprot.entry import ACCESSION, BadEntry, RefusedError, is_utf8, not_utf8

MAX_CELL_CHARS = 16 << 20
"""A cell over several lines is given up beyond this: its quote was never closed."""


def csv_rows(
    lines: Iterable[tuple[int, bytes]], layout: Layout, source: str
) -> Iterator[tuple[int, list[str] | BadEntry]]:
    """(number of its first line, cells) of each row, without blanks round them, or what its first line was refused for.

    Args:
        lines: below the header, with their numbers.
        layout: of the table.
        source: the name for messages.
    """
    csv.field_size_limit(MAX_CELL_CHARS)
    physical = _PhysicalLines(iter(lines))
    reader = csv_reader(physical, layout.delimiter)
    while True:
        physical.taken = []
        row: list[str] | None
        why = "a quote that is not closed"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row, why = None, str(error)
        if row == []:  # a blank line
            continue
        number, first = physical.taken[0]
        if not all(is_utf8(line) for _, line in physical.taken):
            yield number, not_utf8(first, source, number)
        elif row is not None and (len(physical.taken) == 1 or len(row) == layout.width):
            yield number, [cell.strip() for cell in row]
        else:
            physical.put_back_further()
            accession = ACCESSION.match(first.decode())
            refusal = RefusedError("unreadable CSV", first.decode(), f"cells quoted as in CSV; found: {why}")
            yield number, refusal.at(source=source, line=number, accession=accession[0] if accession else None)


class _PhysicalLines(Iterator[str]):
    """Lines for ``csv.reader``, remembered so that those of a row that went wrong can be read again."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self.lines = lines
        self.put_back: deque[tuple[int, bytes]] = deque()
        self.taken: list[tuple[int, bytes]] = []
        """(number, line) of the lines of the row at hand."""

    def __next__(self) -> str:
        number, line = self.put_back.popleft() if self.put_back else next(self.lines)
        self.taken.append((number, line))
        return line.decode(errors="replace") + "\n"

    def put_back_further(self) -> None:
        """Give all lines of the row but its first once more."""
        self.put_back.extendleft(reversed(self.taken[1:]))
