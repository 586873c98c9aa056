"""LMDB files as TAPE and PEER publish them: pickled records under the keys 0, 1, …, and their number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protclip import extras, files
from protclip.errors import DataError
from protclip.evaluation.readers.pickled import read_pickled

_NUMBER = b"num_examples"


def read_lmdb(path: str) -> Iterator[tuple[str, Any]]:
    """(place for messages, value) of each record.

    Args:
        path: of a ``data.mdb``; LMDB maps it into memory, so a URL is copied first.

    Raises:
        ConfigError: if the package lmdb is not installed.
        DataError: if it is no such file, is cut short, or lacks a record or its number.
    """
    extras.require("lmdb", extra="lmdb", what="reading LMDB files")
    import lmdb

    with files.local_copy(path) as local:
        try:
            with lmdb.open(local, subdir=False, readonly=True, lock=False, create=False) as environment:
                _refuse_cut(environment, local, path)
                with environment.begin() as transaction:
                    count = read_pickled(_value(transaction, _NUMBER, path), f"{path}, {_NUMBER.decode()}")
                    if not isinstance(count, int) or count < 1:
                        raise DataError(f"{path}: says that it holds {count!r} records; fetch the file again.")
                    for index in range(count):
                        where = f"{path}, record {index}"
                        yield where, read_pickled(_value(transaction, str(index).encode(), path), where)
        except lmdb.Error as error:
            raise DataError(f"{path}: is no LMDB file, or damaged ({error}); fetch the file again.") from error


def _refuse_cut(environment: Any, local: str, path: str) -> None:
    """What lies beyond the end of a mapped file ends the process, so the end is looked at first."""
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = Path(local).stat().st_size
    if size < expected:
        raise DataError(f"{path}: has {size:,} of {expected:,} bytes: it was cut short. Fetch the file again.")


def _value(transaction: Any, key: bytes, path: str) -> bytes:
    value: bytes | None = transaction.get(key)
    if value is None:
        raise DataError(f"{path}: has no record {key.decode()!r}; fetch the file again.")
    return value
