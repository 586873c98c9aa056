"""Tables: CSV, or cut at tabs; with a header that names the columns, or without one."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from protclip.errors import DataError
from protclip.uniprot.streams import open_stream, read_lines


def read_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """(line from 1, cells) of each row that is not blank, in the memory of one.

    Args:
        path: path or URL, plain or gzip; cut at commas where it is named ``.csv``, at tabs else.

    Raises:
        DataError: if it cannot be read, or a row is no CSV, with its line.
    """
    with open_stream(path) as stream:
        lines = read_lines(stream, path, "a table")
        if not path.removesuffix(".gz").endswith(".csv"):
            for number, line in lines:
                if line.strip():
                    yield number, line.decode(errors="replace").split("\t")
            return
        reader = csv.reader((line.decode(errors="replace") + "\n" for _, line in lines), strict=True)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: is no CSV ({error}); fetch the file again.") from error


def read_columns(path: str, *columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line from 1, the wanted cells) of each row below the header.

    Args:
        path: as ``read_rows``.
        columns: for each wanted one, the names that it has in one file or another; of those the first that is there.

    Raises:
        DataError: as ``read_rows``; if there is no row, a column is not there, or a row ends before one.
    """
    rows = read_rows(path)
    header = [cell.strip() for cell in next(rows, (0, [""]))[1]]
    places = [_place(header, names, path) for names in columns]
    found = False
    for line, cells in rows:
        if len(cells) <= max(places):
            raise DataError(
                f"{path}, line {line}: has {len(cells)} cells, the header {len(header)}; fetch the file again."
            )
        found = True
        yield line, tuple(cells[place] for place in places)
    if not found:
        raise DataError(f"{path}: has no rows below its header; fetch the file again.")


def _place(header: list[str], names: Sequence[str], path: str) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    shown = ", ".join(header)[:200]
    raise DataError(f"{path}: has no column {' or '.join(map(repr, names))}; its columns are: {shown}.")
