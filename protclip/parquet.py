"""Parquet files, of our own folders and given to embed, opened after their footer was compared with their size.

A footer is believed when memory is reserved; one of a few bytes may speak of 10^12 rows. What a page holds is known
only when it is unpacked, at most 2 GB each; that is left to Arrow.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.errors import DataError

MAX_ROWS_PER_BYTE = 64
"""Each row of ours has an accession of its own, of which zstd leaves about a byte."""
MAX_EXPANSION = 4096
"""Bytes in memory for a byte of the file: vectors that are all equal come near it."""
FREE_BYTES = 64 << 20
"""So much is always allowed."""


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Open a parquet file, and name it in whatever is wrong with it.

    Raises:
        DataError: if it is no such file, is damaged, or its footer speaks of more than can be in it.
    """
    with files.open_regular(path) as stream:
        num_bytes = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        try:
            file = pq.ParquetFile(stream)
            metadata = file.metadata
            if not 0 <= metadata.num_rows <= MAX_ROWS_PER_BYTE * num_bytes or max(
                _row_bytes(file.schema_arrow) * metadata.num_rows,
                sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)),
            ) > max(MAX_EXPANSION * num_bytes, FREE_BYTES):
                raise DataError(
                    f"{path}: its footer speaks of {metadata.num_rows:,} rows of {_row_bytes(file.schema_arrow):,} "
                    f"bytes or more, the file has {num_bytes:,} bytes; it is damaged. Restore it or make it again."
                )
            yield file
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            why = " ".join(str(error).split())
            raise DataError(f"{path}: is not a readable parquet file ({why}); restore it or make it again.") from error


def valid(table: pa.Table) -> pa.Table:
    """The table, whose texts are UTF-8; for use within ``open_parquet``."""
    table.validate(full=True)
    return table


def with_column(table: pa.Table, field: pa.Field) -> pa.Table:
    """The table; with nulls where it is of a version that did not have the column yet."""
    return table if field.name in table.column_names else table.append_column(field, pa.nulls(len(table), field.type))


def _row_bytes(schema: pa.Schema) -> int:
    """Of the vectors of a row."""
    lists = [field.type for field in schema if pa.types.is_fixed_size_list(field.type)]
    return sum(
        kind.list_size * kind.value_type.bit_width // 8 for kind in lists if pa.types.is_primitive(kind.value_type)
    )
