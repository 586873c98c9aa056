"""Columns of texts as bytes, the pieces that these are cut into, and token ids as lists; all rows at once, in numpy.

Shapes: N rows, C bytes of all rows, P pieces of all rows, T tokens of all rows.
"""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def utf8_bytes(strings: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 of all rows, one after the other (C,), and where each begins, and C at the end, (N + 1,)."""
    array = strings.combine_chunks() if isinstance(strings, pa.ChunkedArray) else strings
    assert array.null_count == 0
    _, offsets, data = array.buffers()
    start_N1 = np.frombuffer(offsets, dtype=np.int32)[array.offset :][: len(array) + 1].astype(np.int64)
    all_bytes = np.frombuffer(data or b"", dtype=np.uint8)
    return all_bytes[start_N1[0] : start_N1[-1]], start_N1 - start_N1[0]


def sums_before(length_N: np.ndarray) -> np.ndarray:
    """The sum of the lengths before each, and of all at the end, (N + 1,)."""
    return np.concatenate([[0], np.cumsum(length_N)])


def framed_lists(ids_T: np.ndarray, length_N: np.ndarray, first_id: int, last_id: int) -> pa.ListArray:
    """A list of so many of the ids for each row, between two special tokens."""
    start_N1 = sums_before(length_N + 2)
    inner_T = np.ones(start_N1[-1], dtype=bool)
    inner_T[start_N1[:-1]] = inner_T[start_N1[1:] - 1] = False
    framed_T = np.empty(start_N1[-1], dtype=ids_T.dtype)
    framed_T[start_N1[:-1]], framed_T[start_N1[1:] - 1] = first_id, last_id
    framed_T[inner_T] = ids_T
    return pa.ListArray.from_arrays(pa.array(start_N1, pa.int32()), pa.array(framed_T))


_SPACE, _MARK = 1, 2
"""What a byte is to the cutting into pieces; 0 for all others."""


def piece_cuts(tokenizer: Tokenizer) -> np.ndarray | None:
    """_SPACE, _MARK or 0 for each byte, (256,); None where the tokens of a piece depend on its neighbours.

    BERT's do not: it cuts at spaces and punctuation before it looks for word pieces, and its normalizer changes letters
    one by one. A special token in a text has to stay whole.
    """
    state = json.loads(tokenizer.to_str())
    kinds = [(state[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    added = [token["content"] for token in state["added_tokens"]]
    frame, letter = tokenizer.encode("").ids, tokenizer.encode("a", add_special_tokens=False).ids
    if (
        kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        or any(token["lstrip"] or token["rstrip"] or " " in token["content"] for token in state["added_tokens"])
        or len(frame) != 2
        or tokenizer.encode("a").ids != [frame[0], *letter, frame[1]]
    ):
        return None
    cuts_256 = np.zeros(256, dtype=np.uint8)
    cuts_256[[ord(mark) for mark in string.punctuation if not any(mark in token for token in added)]] = _MARK
    cuts_256[ord(" ")] = _SPACE
    return cuts_256


def piece_starts(cut_C: np.ndarray, start_N1: np.ndarray) -> np.ndarray:
    """Where pieces begin: a mark or a run of other bytes, with the spaces after it; and C at the end, (P + 1,)."""
    starts_C1 = np.zeros(len(cut_C) + 1, dtype=bool)
    starts_C1[1:-1] = (cut_C[1:] != _SPACE) & ((cut_C[:-1] != 0) | (cut_C[1:] == _MARK))
    starts_C1[start_N1] = True
    return np.flatnonzero(starts_C1)
