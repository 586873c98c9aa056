"""hnswlib's file of a graph, read without hnswlib, which believes every number in it and crashes on wrong ones.

head            _HEADER
N elements      links of level 0 (their number, then 2M rows), vector, label
N upper lists   bytes of the list, 0 for most rows; then for each level above 0: number of links, M rows

N vectors, D dimension, L lists above level 0
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from protclip.errors import DataError
from protclip.index.exact import BLOCK_ROWS

# offset_level0, max_elements, count, bytes per element, label offset, data offset, max level, entry point, max M,
# max M at level 0, M, level multiplier, ef_construction
_HEADER = struct.Struct("<6QiI3QdQ")
_LINK_BYTES, _LABEL_BYTES, _FLOAT_BYTES = 4, 8, 4
MAX_M = 256
"""Links of a vector above level 0; at level 0 there are twice as many."""
MAX_LEVEL = 64
"""No row is drawn above: each level has at most half of the rows of the level below."""


class Elements(NamedTuple):
    """What the file holds of each row; views of the file, by row."""

    links: NDArray[np.uint32]
    """(N, 1 + 2M): the number of links at level 0, then the rows that they lead to."""
    vectors: NDArray[np.float32]
    """(N, D), normalised by hnswlib."""
    labels: NDArray[np.uint64]
    """(N,)"""
    m: int
    max_level: int
    entry_point: int
    upper: NDArray[np.uint32]
    """All words behind the elements."""


def read_elements(path: str, *, dimension: int, count: int) -> Elements:
    """Map a saved graph, after its head was compared with the file's size and with what is expected.

    Raises:
        DataError: if the file is no such graph.
    """
    with Path(path).open("rb") as stream:
        head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise DataError(f"{path}: is too short for an HNSW graph; make the index again.")
    (level0, room, found_count, element_bytes, label_offset, data_offset, max_level, entry_point, *ms, _, _) = (
        _HEADER.unpack(head)
    )
    found_dimension = (label_offset - data_offset) // _FLOAT_BYTES
    if (found_count, found_dimension) != (count, dimension):
        raise DataError(
            f"{path}: holds {found_count} vectors of dimension {found_dimension}, expected {count} of {dimension}; "
            "its manifest belongs to another index. Make the index again."
        )
    max_m, max_m0, m = ms
    upper_bytes = Path(path).stat().st_size - _HEADER.size - count * element_bytes
    if (
        (level0, room, max_m, max_m0) != (0, count, m, 2 * m)
        or not 2 <= m <= MAX_M
        or data_offset != _LINK_BYTES * (1 + 2 * m)
        or label_offset != data_offset + _FLOAT_BYTES * dimension
        or element_bytes != label_offset + _LABEL_BYTES
        or upper_bytes < _LINK_BYTES * count
        or upper_bytes % _LINK_BYTES
    ):
        raise DataError(f"{path}: is not an HNSW graph; make the index again.")
    raw = np.memmap(path, np.uint8, "r")
    end = _HEADER.size + count * element_bytes
    elements = raw[_HEADER.size : end].reshape(count, element_bytes).view(np.ndarray)
    return Elements(
        links=elements[:, :data_offset].view(np.uint32),
        vectors=elements[:, data_offset:label_offset].view(np.float32),
        labels=elements[:, label_offset:].view(np.uint64)[:, 0],
        m=m,
        max_level=max_level,
        entry_point=entry_point,
        upper=raw[end:].view(np.ndarray).view(np.uint32),
    )


def check_graph(path: str, *, dimension: int, count: int) -> None:
    """Refuse a graph that hnswlib would not survive, or that has other labels than its rows.

    All lists of all levels: their lengths, the rows that they lead to and the levels of those; each label; the entry
    point; and that the file ends where they end. For 2 GB this takes about as long as reading them.

    Raises:
        DataError: saying what is wrong.
    """
    elements = read_elements(path, dimension=dimension, count=count)
    for start in range(0, count, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        links = elements.links[part]
        if (links[:, 0] > 2 * elements.m).any():  # the upper half of the word marks rows as deleted; none are
            _refuse(path, "a row has more links than the graph allows, or is marked as deleted")
        if (links[:, 1:] >= count).any():
            _refuse(path, "a link leads to a row that is not there")
        if (elements.labels[part] != np.arange(start, start + len(links))).any():
            _refuse(path, "a label is not its row")
    level_N, start_L, of_L = _upper_lists(path, elements, count)
    if not elements.entry_point < count or level_N[elements.entry_point] != elements.max_level:
        _refuse(path, f"its entry point, row {elements.entry_point}, is not on the highest level")
    if level_N.max() != elements.max_level:
        _refuse(path, f"its highest level is {level_N.max()}, its head says {elements.max_level}")
    for begin in range(0, len(start_L), BLOCK_ROWS):
        part = slice(begin, begin + BLOCK_ROWS)
        lists = elements.upper[start_L[part, None] + np.arange(1 + elements.m)]
        used = np.arange(elements.m) < lists[:, :1]
        if (lists[:, 0] > elements.m).any():
            _refuse(path, "a row has more links than the graph allows")
        if (lists[:, 1:][used] >= count).any():
            _refuse(path, "a link leads to a row that is not there")
        if (level_N[np.where(used, lists[:, 1:], 0)] < of_L[part, None])[used].any():
            _refuse(path, "a link leads to a row that is not on its level")


def _upper_lists(
    path: str, elements: Elements, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Level of each row, (N,); where in ``upper`` each list above level 0 begins, and its level, (L,)."""
    words, list_words = elements.upper, 1 + elements.m
    filled = np.flatnonzero(words)
    level_N = np.zeros(count, np.int64)
    places = []
    row = place = 0
    while place < len(words):
        # A row without upper lists is one word, 0: all rows up to the next other word are such.
        at = int(np.searchsorted(filled, place))
        zeros = (int(filled[at]) if at < len(filled) else len(words)) - place
        row, place = row + zeros, place + zeros
        if place == len(words):
            break
        level, rest = divmod(int(words[place]), _LINK_BYTES * list_words)
        end = place + 1 + level * list_words
        if row >= count or rest or not 1 <= level <= MAX_LEVEL or end > len(words):
            _refuse(path, f"the lists of row {row} have a length that cannot be")
        level_N[row] = level
        places.append(place + 1)
        row, place = row + 1, end
    if row != count:
        _refuse(path, f"it ends with row {row} of {count}")
    of_row = level_N[level_N > 0]
    first_L = np.repeat(np.array(places, np.int64), of_row)
    above_L = np.arange(len(first_L)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    return level_N, first_L + above_L * list_words, 1 + above_L


def _refuse(path: str, why: str) -> NoReturn:
    raise DataError(f"{path}: is not a whole HNSW graph ({why}); make the index again.")
