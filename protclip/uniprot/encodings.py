"""Text in any Unicode encoding as UTF-8 without a mark, where the first bytes show which it is."""

from __future__ import annotations

import codecs
from typing import IO

# In this order: the mark of UTF-32 starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT = 256


class Utf8Stream:
    """The UTF-8 bytes of a stream of text; what was UTF-8 before, or is in no Unicode encoding, comes as it is."""

    def __init__(self, raw: IO[bytes]) -> None:
        # read1 gives what one step of decompression gave, some 30 kB; read would drop that when the next step fails.
        self._read = getattr(raw, "read1", raw.read)
        self._started = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def read(self, size: int) -> bytes:
        """Some bytes, not always so many; none at the end.

        Raises:
            UnicodeError: if it breaks the encoding that it begins in; and as the stream's own ``read``.
        """
        while piece := self._read(size):
            if not self._started:
                self._started = True
                mark, encoding = _find_encoding(piece[:_LOOKED_AT])
                piece = piece[len(mark) :]
                if encoding != "utf-8":
                    self._decoder = codecs.getincrementaldecoder(encoding)()
            if text := piece if self._decoder is None else self._decoder.decode(piece).encode():
                return text
        if self._decoder is not None:
            self._decoder.decode(b"", final=True)
        return b""


def _find_encoding(start: bytes) -> tuple[bytes, str]:
    """The mark that a text starts with, and its encoding; UTF-8 stands for all without zero bytes."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return mark, encoding
    # Where there is no mark, letters of ASCII tell: in UTF-16 one of their two bytes is zero, in UTF-8 none is.
    first, second = start[0::2], start[1::2]
    for high, low, encoding in ((second, first, "utf-16-le"), (first, second, "utf-16-be")):
        if len(high) > 1 and high.count(0) > len(high) / 2 and 0 not in low:
            return b"", encoding
    return b"", "utf-8"
