"""Records with named fields, in whichever of the published formats a file has: a table, JSON lines or LMDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from protclip import files
from protclip.errors import DataError
from protclip.evaluation.readers.lmdb_files import read_lmdb
from protclip.evaluation.readers.tables import read_columns
from protclip.uniprot.streams import open_stream, read_lines


def read_records(path: str, *fields: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(place for messages, the wanted values) of each record, in the memory of one.

    Args:
        path: of a table (``tables.py``) or of JSON lines, ``.json`` or ``.jsonl``, plain or gzip; or of LMDB, ``.mdb``.
        fields: for each wanted value, the names that it has in one file or another.

    Raises:
        DataError: if it cannot be read, holds no record, or a record has not what is wanted.
    """
    if path.removesuffix(".gz").endswith((".json", ".jsonl")):
        yield from _json_lines(path, fields)
        return
    if path.endswith(".mdb"):
        for where, record in read_lmdb(path):
            yield where, pick(record, fields, where)
        return
    for line, cells in read_columns(path, *fields):
        yield f"{path}, line {line}", cells


def _json_lines(path: str, fields: Sequence[Sequence[str]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    found = False
    with open_stream(path) as stream:
        for number, line in read_lines(stream, path, "JSON lines"):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, pick(files.parse_json(line.decode(errors="replace"), where), fields, where)
                found = True
    if not found:
        raise DataError(f"{path}: holds no record; fetch the file again.")


def pick(record: Any, fields: Sequence[Sequence[str]], where: str) -> tuple[Any, ...]:
    """The wanted values of a record.

    Raises:
        DataError: if it is no record, or has not one of them.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: is no record with named fields but {str(record)[:100]!r}.")
    picked = []
    for names in fields:
        name = next((name for name in names if name in record), None)
        if name is None:
            raise DataError(f"{where}: has no field {' or '.join(map(repr, names))}; its fields are: {list(record)}.")
        picked.append(record[name])
    return tuple(picked)
