"""Units of work: each leaves files and then a report, so that a run that was killed goes on with what is missing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protclip import files

Item = Mapping[str, Any]
Unit = Callable[[Item], dict[str, Any]]
Run = Callable[[Unit, Sequence[Item], str, int], Iterable[Any]]
"""Does a unit for each item, in any order. Arguments: the unit, the items (JSON values), a title for people, and the
memory of one unit in bytes."""


def in_turn(unit: Unit, items: Sequence[Item], _title: str, _memory_bytes: int) -> Iterator[Any]:
    """One after another, in this process."""
    return map(unit, items)


def run_units(unit: Unit, items: Sequence[Item], work: str, title: str, memory_bytes: int, run: Run) -> list[Any]:
    """Do the units that have no report yet.

    Args:
        unit: the function; what it returns is its report.
        items: each with a ``unit`` of its own, a string.
        work: folder of the reports.
        title: what is done, for people.
        memory_bytes: of one unit.
        run: how units are run.

    Returns:
        The reports of all, in order.
    """
    folder = files.join(work, title)
    done = set(files.list_folder(folder))
    missing = [item for item in items if f"{item['unit']}.json" not in done]
    if missing:
        for _ in run(_Reporting(unit, folder), missing, title, memory_bytes):
            pass
    return files.in_threads(lambda item: files.read_json(files.join(folder, f"{item['unit']}.json")), items)


class _Reporting:
    """A unit that writes its report, the last of its files."""

    def __init__(self, unit: Unit, folder: str) -> None:
        self.unit, self.folder = unit, folder

    def __call__(self, item: Item) -> dict[str, Any]:
        with files.telling_what_cannot_be_written(self.folder):
            files.write_json(files.join(self.folder, f"{item['unit']}.json"), self.unit(item))
        return {}


def write_arrays(path: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays."""
    with files.atomic_write(path) as stream:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        stream.write(buffer.getbuffer())


def read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Read what ``write_arrays`` wrote."""
    with files.open_read(path) as stream, np.load(io.BytesIO(stream.read())) as arrays:
        return dict(arrays)
