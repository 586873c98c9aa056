"""Parquet files, of our own folders and given to embed, opened after their footer was compared with their size.

A footer is believed when memory is reserved; one of a few bytes may speak of 10^12 rows. What a page holds is known
only when it is unpacked, at most 2 GB each; that is left to Arrow. A value that many rows have is in the file once, and
so it is kept in memory where files of others are read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.errors import DataError

MAX_ROWS_PER_BYTE = 64
"""Each row of ours has an accession of its own, of which zstd leaves about a byte."""
MAX_EXPANSION = 4096
"""Bytes in memory for a byte of the file: vectors that are all equal come near it."""
FREE_BYTES = 64 << 20
"""So much is always allowed."""

MAX_ROW_BYTES = 64 << 20
"""Of one row of a file of others, and of what is read at once of it; no protein has a text or sequence near it."""
_VALUE_BYTES = 16
"""Of a value or null in memory, beside what it says, about."""


@contextlib.contextmanager
def open_parquet(path: str, *, keep_dictionaries: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a parquet file, and name it in whatever is wrong with it.

    Args:
        path: path or URL.
        keep_dictionaries: whether columns of texts are read as dictionaries (see ``column_values``): rows that repeat a
            large value are then no larger in memory than in the file.

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
            yield pq.ParquetFile(stream, read_dictionary=_text_columns(metadata)) if keep_dictionaries else file
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            why = " ".join(str(error).split())
            raise DataError(f"{path}: is not a readable parquet file ({why}); restore it or make it again.") from error


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A whole file, or some of its columns.

    Raises:
        DataError: as ``open_parquet``.
    """
    with open_parquet(path) as file:
        return valid(file.read(columns))


def read_own_table(path: str, **options: Any) -> pa.Table:
    """A file that this very run wrote; the options are those of pyarrow's ``read_table``."""
    with files.open_read(path) as stream:
        return pq.read_table(stream, **options)


def rows_at_once(file: pq.ParquetFile, columns: Collection[str], path: str) -> int:
    """How many rows of these columns are about MAX_ROW_BYTES by the footer, at least 1.

    Raises:
        DataError: if a row is larger.
    """
    metadata = file.metadata
    largest = 1.0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        chunks = [group.column(j) for j in range(group.num_columns)]
        read = [chunk for chunk in chunks if _top_level(chunk.path_in_schema, columns)]
        num_bytes = sum(chunk.total_uncompressed_size + _VALUE_BYTES * chunk.num_values for chunk in read)
        largest = max(largest, num_bytes / max(group.num_rows, 1))
    if largest > MAX_ROW_BYTES:
        raise DataError(
            f"{path}: a row has {largest / 2**20:,.0f} MB on average by its footer; at most {MAX_ROW_BYTES >> 20} MB "
            "are read. Remove what is no protein and no text of one."
        )
    return int(MAX_ROW_BYTES / largest)


def column_values(array: pa.Array) -> list[Any]:
    """The values of a column as Python has them; rows of a dictionary that say the same share one."""
    if pa.types.is_dictionary(array.type):
        values = array.dictionary.to_pylist()
        return [None if i is None else values[i] for i in array.indices.to_pylist()]
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        items = iter(column_values(array.flatten()))
        lengths = pc.list_value_length(array).to_pylist()
        return [None if length is None else list(islice(items, length)) for length in lengths]
    return list(array.to_pylist())


def _text_columns(metadata: pq.FileMetaData) -> list[str]:
    columns = [metadata.schema.column(i) for i in range(len(metadata.schema))]
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type in ("STRING", "NONE")
    ]


def _top_level(path: str, names: Collection[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


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
