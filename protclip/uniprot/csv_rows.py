"""Rows of a CSV file whose quoted cells may hold commas and line ends, and whose quotes may be damaged."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import IO

from protclip.uniprot.entry import ACCESSION, BadEntry, RefusedError, is_utf8, not_utf8
from protclip.uniprot.streams import read_lines

MAX_CELL_CHARS = 16 << 20
"""A cell over several lines is given up beyond this: its quote was never closed."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def csv_rows(stream: IO[bytes], source: str) -> Iterator[tuple[int, list[str] | BadEntry]]:
    """(number of its first line, cells) of each row, header included, or what its first line was refused for."""
    csv.field_size_limit(MAX_CELL_CHARS)
    lines = _PhysicalLines(read_lines(stream, source, "a CSV file"))
    reader = csv.reader(lines, strict=True)
    width = None
    while True:
        lines.taken = []
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
        number, first = lines.taken[0]
        if width is None:
            width = len(row or ())
        if not all(is_utf8(line) for _, line in lines.taken):
            yield number, not_utf8(first, source, number)
        elif row is not None and (len(lines.taken) == 1 or len(row) == width):
            yield number, row
        else:
            lines.put_back_further()
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
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        self.taken.append((number, line))
        return line.decode(errors="replace") + "\n"

    def put_back_further(self) -> None:
        """Give all lines of the row but its first once more."""
        self.put_back.extendleft(reversed(self.taken[1:]))
