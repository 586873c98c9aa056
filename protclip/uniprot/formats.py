"""Which reader reads which file, and which files a path, glob or URL means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

from protclip import files
from protclip.errors import DataError
from protclip.manifest import FILE_NAME, kind_of_folder
from protclip.uniprot.batch import EntryBatch, batches_of
from protclip.uniprot.columns import describe_unused
from protclip.uniprot.dialect import read_layout
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.fasta import read_fasta
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.flat_file_batches import read_flat_file_batches
from protclip.uniprot.json_entries import read_json
from protclip.uniprot.json_lines import read_json_lines
from protclip.uniprot.sniffing import sniff
from protclip.uniprot.streams import open_stream, read_blocks
from protclip.uniprot.table import read_table, read_table_batches
from protclip.uniprot.xml_entries import read_xml

Reader = Callable[[IO[bytes], str], Iterator[Entry | BadEntry]]

READERS: dict[str, Reader] = {
    ".dat": read_flat_file,
    ".txl": read_flat_file,
    ".txt": read_flat_file,
    ".fasta": read_fasta,
    ".fa": read_fasta,
    ".faa": read_fasta,
    ".tsv": read_table,
    ".tab": read_table,
    ".csv": read_table,
    ".xml": read_xml,
    ".jsonl": read_json_lines,
    ".json": read_json,
}
"""By the file name's ending, ``.gz`` set aside."""


def reader_of(path: str) -> Reader:
    """The reader of a file.

    Raises:
        DataError: as ending_of.
    """
    return READERS[ending_of(path)]


def ending_of(path: str) -> str:
    """The ending in READERS that tells what a file is: by its content where that is certain, else its name's.

    Raises:
        DataError: if it cannot be read, is certainly of another kind, or neither content nor name tells.
    """
    ending = sniff(path) or named_ending(path)
    if ending is None:
        raise DataError(
            f"{path}: unknown kind of file; known endings are {', '.join(READERS)}, each with or without .gz."
        )
    return ending


def named_ending(path: str) -> str | None:
    """The ending in READERS that a file's name has."""
    name = path.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    return next((ending for ending in READERS if name.endswith(ending)), None)


def open_entries(path: str) -> Iterator[Entry | BadEntry]:
    """Stream the entries of one file, local or fsspec URL; gzip is told by its first bytes.

    Raises:
        DataError: if the file is unreadable, of unknown kind, damaged, or holds no entry.
    """
    reader = reader_of(path)
    with open_stream(path) as stream:
        yield from reader(stream, path)


def open_batches(path: str) -> Iterator[EntryBatch]:
    """Stream the entries of one file in batches: the same entries as open_entries gives, as far as they are asked for.

    Raises:
        DataError: as open_entries.
    """
    ending = ending_of(path)
    with open_stream(path) as stream:
        yield from read_batches(stream, path, ending)


def read_batches(stream: IO[bytes], path: str, ending: str) -> Iterator[EntryBatch]:
    """The same of the decompressed bytes of a file, or of a part of it that could stand alone.

    Args:
        stream: the bytes.
        path: of the file, for messages.
        ending: that tells what it is; see ``ending_of``.

    Raises:
        DataError: as open_entries.
    """
    reader = READERS[ending]
    if reader is read_table:
        yield from read_table_batches(stream, path)
    elif reader is read_flat_file:
        yield from read_flat_file_batches(stream, path)
    else:
        yield from batches_of(reader(stream, path))


def describe_unused_columns(paths: Sequence[str]) -> Iterator[str]:
    """What the tables among some files have that is not read, a line for all that have the same.

    Raises:
        DataError: if a table lacks the columns of accession and sequence.
    """
    by_columns: dict[str | None, list[str]] = {}
    for path, columns in zip(paths, files.in_threads(_unused_columns, paths), strict=True):
        by_columns.setdefault(columns, []).append(path)
    for columns, named in by_columns.items():
        if columns is not None:
            more = f" and {len(named) - 1:,} more like it" if len(named) > 1 else ""
            yield f"{named[0]}{more}: not read are the columns {columns}"


def _unused_columns(path: str) -> str | None:
    if reader_of(path) is not read_table:
        return None
    with open_stream(path) as stream:
        layout, _ = read_layout(read_blocks(stream, path), path)
        return describe_unused(layout.header, layout.index)


def expand_inputs(patterns: Iterable[str]) -> list[str]:
    """The files that paths, globs and URLs mean, absolute, each once, in sorted order.

    Raises:
        DataError: if one of them means no file, or a file of unknown kind.
    """
    found: set[str] = set()
    for pattern in patterns:
        path, meant = files.absolute(pattern), files.expand(pattern)
        if meant == [path] and not files.is_file(path):
            raise DataError(f"{pattern}: {_why_no_file(path)}.")
        found.update(meant)
    files.in_threads(ending_of, sorted(found))
    return sorted(found)


def _why_no_file(path: str) -> str:
    if not files.is_folder(path):
        return "does not exist"
    manifest = files.join(path, FILE_NAME)
    if files.exists(manifest):
        return f"is {kind_of_folder(files.read_json(manifest))}, and files of UniProtKB are needed here"
    return "is a folder; name its files, for example by a glob"
