"""Files as streams of text: local or fsspec URL, plain or gzip, with errors that name the file.

What is behind ``open_stream`` is UTF-8, and behind ``read_blocks`` every line ends with LF alone and begins without a
byte order mark, so that readers know nothing else.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from isal import isal_zlib

from protclip import files
from protclip.errors import DataError
from protclip.foreign import HEAD_BYTES, foreign_kind
from protclip.uniprot.encodings import Utf8Stream

BLOCK_BYTES = 512 << 10
"""What is worked on at once; it stays in a processor's cache."""
_NEWLINE = ord("\n")
_PACKED_BYTES = 64 << 10
_HEAD_BYTES = 8 << 10  # of a gzip file; they unpack to more than HEAD_BYTES
_GZIP = 16 + isal_zlib.MAX_WBITS
_DAMAGED = cast(type[Exception], isal_zlib.error)
GZIP_MAGIC = b"\x1f\x8b"
# CR CR LF is what a program leaves that writes CRLF as text: one end of a line, not two.
_LINE_END = re.compile(rb"\r\r?\n|\r")
_MARK = codecs.BOM_UTF8
MAX_LINE_BYTES = 64 << 20
"""No file of ours has a longer line; more without a line end is another kind of file."""


@contextlib.contextmanager
def open_stream(path: str, *, pipes: bool = False) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its first two bytes are gzip's, whatever its name says, and as UTF-8.

    Args:
        path: path or URL.
        pipes: whether it may be one, such as /dev/stdin: for callers that read a file once.

    Raises:
        DataError: if it cannot be opened, or is an archive or another kind of binary file.
    """
    is_pipe = pipes and not files.is_url(path) and Path(path).is_fifo()
    # fsspec asks a file for its size, and a pipe has none.
    with Path(path).open("rb") if is_pipe else files.open_read(path) as raw:
        try:
            head = raw.read(_HEAD_BYTES)
            if not is_pipe:
                raw.seek(0)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); check the path and its permissions.") from error
        whole = cast(IO[bytes], _Rejoined(head, raw)) if is_pipe else raw
        is_gzip = head.startswith(GZIP_MAGIC)
        if is_gzip:
            with contextlib.suppress(_DAMAGED):  # which reading will tell
                head = isal_zlib.decompressobj(_GZIP).decompress(head, HEAD_BYTES)
        what = foreign_kind(head)
        if is_gzip and head.startswith(GZIP_MAGIC):
            what = "compressed by gzip twice: unpack it once (gunzip FILE)"
        if what is not None:
            raise DataError(f"{path}: is {what}.")
        yield cast(IO[bytes], Utf8Stream(cast(IO[bytes], _Gunzip(whole)) if is_gzip else whole))


class _Rejoined:
    """A pipe again from its beginning, of which the head was read."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        piece, self._head = self._head[:size], self._head[size:]
        return piece or self._rest.read(size)


class _Gunzip:
    """The decompressed bytes of a gzip file, as they come: what stands before a damage is given before the error."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._packed = b""
        self._member: isal_zlib.Decompress | None = None

    def read(self, size: int) -> bytes:
        while True:
            self._packed = self._packed or self._raw.read(_PACKED_BYTES)
            if self._member is None:
                self._packed = self._packed.lstrip(b"\0")  # some programs pad their archives
                if not self._packed:
                    return b""
                self._member = isal_zlib.decompressobj(_GZIP)
            elif not self._packed:
                raise EOFError
            piece = self._member.decompress(self._packed, size)
            if self._member.eof:  # another may follow
                self._packed, self._member = self._member.unused_data, None
            else:
                self._packed = self._member.unconsumed_tail
            if piece:
                return piece


def read_blocks(stream: IO[bytes], source: str) -> Iterator[bytes]:
    """The stream in blocks of about BLOCK_BYTES, with LF for every CRLF and CR, in quoted cells too.

    Lines begin without a byte order mark: files that were put together have them inside. Everything before a damage is
    given before the error.

    Raises:
        DataError: if the stream ends early or is damaged.
    """
    held, begins_line = b"", True
    for read in _read_lf_blocks(stream, source):
        block = held + read if held else read
        held = b""
        if b"\xef" in block:
            num_held = next((size for size in (2, 1) if block.endswith(_MARK[:size])), 0)  # a mark that was cut
            block, held = block[: len(block) - num_held], block[len(block) - num_held :]
            block = block.replace(b"\n" + _MARK, b"\n")
            block = block.removeprefix(_MARK) if begins_line else block
        if block:
            begins_line = block.endswith(b"\n")
            yield block
    if held:
        yield held


def _read_lf_blocks(stream: IO[bytes], source: str) -> Iterator[bytes]:
    held = b""  # at the end of a block, until the next one shows whether an LF follows
    for read in _read_blocks(stream, source):
        block = held + read if held else read
        held = b""
        if b"\r" in block:
            if block.endswith(b"\r"):
                held = b"\r\r" if block.endswith(b"\r\r") else b"\r"
            block = _with_lf(block[: len(block) - len(held)])
        if block:
            yield block
    if held:
        yield _with_lf(held)


def _with_lf(text: bytes) -> bytes:
    common = text.replace(b"\r\n", b"\n")
    return _LINE_END.sub(b"\n", text) if b"\r" in common else common


def _read_blocks(stream: IO[bytes], source: str) -> Iterator[bytes]:
    """The stream as it is, in blocks."""
    pieces: list[bytes] = []
    num_bytes = 0
    try:
        for piece in _read_pieces(stream, source):
            pieces.append(piece)
            num_bytes += len(piece)
            if num_bytes >= BLOCK_BYTES:
                yield b"".join(pieces)
                pieces, num_bytes = [], 0
    except DataError:
        if pieces:
            yield b"".join(pieces)
        raise
    if pieces:
        yield b"".join(pieces)


def _read_pieces(stream: IO[bytes], source: str) -> Iterator[bytes]:
    while True:
        try:
            piece = stream.read(BLOCK_BYTES)
        except EOFError as error:
            raise DataError(
                f"{source}: the gzip stream ends in the middle: the file was cut short. Fetch or copy it again."
            ) from error
        except (OSError, UnicodeError, _DAMAGED) as error:
            raise DataError(f"{source}: cannot be read to its end ({error}). Fetch or copy it again.") from error
        if not piece:
            return
        yield piece


def read_lines(stream: IO[bytes], source: str, kind: str) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end) of each line.

    Args:
        stream: decompressed bytes.
        source: the name for messages.
        kind: what the file should be, for the message: ``a FASTA file``.

    Raises:
        DataError: if the stream is damaged, or a line longer than MAX_LINE_BYTES.
    """
    yield from split_lines(read_line_blocks(stream, source, kind))


def split_lines(blocks: Iterable[bytes], first: int = 1) -> Iterator[tuple[int, bytes]]:
    """(number, line without its end) of each line of blocks of whole lines, of which the first one has this number."""
    number = first
    for block in blocks:
        if block:
            for line in block.removesuffix(b"\n").split(b"\n"):
                yield number, line
                number += 1


def num_lines(text: bytes) -> int:
    """The line ends in a text; several times as fast as bytes.count, which is made for what is rare."""
    data = np.frombuffer(text, np.uint8)
    return sum(
        int(np.count_nonzero(data[start : start + BLOCK_BYTES] == _NEWLINE))
        for start in range(0, len(data), BLOCK_BYTES)
    )


def read_line_blocks(stream: IO[bytes], source: str, kind: str) -> Iterator[bytes]:
    """The stream in blocks of whole lines; only the last may lack its line end.

    Raises:
        DataError: as read_lines.
    """
    pieces: list[bytes | memoryview] = []
    num_given = num_held = 0
    for block in read_blocks(stream, source):
        end = block.rfind(b"\n") + 1
        if end:
            whole = b"".join([*pieces, memoryview(block)[:end]])
            yield whole
            num_given += len(whole)
            pieces, num_held = [], 0
        pieces.append(block[end:])
        num_held += len(block) - end
        if num_held > MAX_LINE_BYTES:
            raise DataError(
                f"{source}: the line at byte {num_given:,} is over {MAX_LINE_BYTES >> 20} MB; is this {kind}?"
            )
    if num_held:
        yield b"".join(pieces)
