"""Files of other kinds than ours, told by their first bytes: what they are, and what to do with them."""

from __future__ import annotations

HEAD_BYTES = 512
"""Of a file, enough to tell."""

_TAR = (257, b"ustar")
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"PK\x03\x04",
        "a zip archive (or a workbook of Excel): take out what is in it (unzip FILE; or save it as CSV)",
    ),
    (0, b"BZh", "compressed by bzip2: unpack it (bunzip2 FILE); gzip is read as it is"),
    (0, b"\xfd7zXZ\0", "compressed by xz: unpack it (unxz FILE); gzip is read as it is"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it (unzstd FILE); gzip is read as it is"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: take out what is in it (7z x FILE)"),
    (0, b"Rar!", "a rar archive: take out what is in it (unrar x FILE)"),
    (*_TAR, "a tar archive: take out what is in it (tar xf FILE)"),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "HDF5, as UniProt's precomputed embeddings are (per-protein.h5), which come from another model: it holds "
        "vectors and no sequences; embed makes vectors of this one, and index takes those with --model NAME",
    ),
    (0, b"PAR1", "parquet: embed reads it under the ending .parquet"),
    (
        0,
        b"\x93NUMPY",
        "an array of numpy, and no sequences or texts; index takes vectors of another tool with --model NAME",
    ),
    (0, b"SQLite format 3\0", "an SQLite database: export what is in it as TSV"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old workbook of Excel (or another file of Office): save it as CSV"),
    (0, b"%PDF-", "a PDF document"),
)


def foreign_kind(head: bytes) -> str | None:
    """What a file is by its first HEAD_BYTES and what to do with it, to stand behind ``is``; None for all others."""
    return next((what for place, mark, what in _KINDS if head.startswith(mark, place)), None)
