"""What must be true of a benchmark before numbers are made of it, and what a data folder has of each task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from protclip.errors import ConfigError, DataError, MissingDataError
from protclip.evaluation.rows import SPLITS
from protclip.evaluation.task import Benchmark, Kind, Split, Task
from protclip.evaluation.tasks import TASKS

MAX_SHARED = 0.01
"""Published splits share single sequences (TAPE's stability 26 of 12,851); more is a mistake (decision 107)."""
TRAINED: tuple[Kind, ...] = ("regression", "classes", "labels", "graph")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a data folder has of a task."""

    task: Task
    state: Literal["ready", "missing", "wrong"]
    problem: str = ""
    """What is missing or wrong; empty if it is ready."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Of each split."""
    num_proteins: int = 0
    num_labels: int = 0
    """Classes, or texts where these are the labels; 0 of numbers."""
    lengths: tuple[int, int, int] = (0, 0, 0)
    """Residues of the shortest, the median and the longest protein."""
    sha256: str = ""
    """Of all its files: two folders with the same one have the same data."""
    note: str = ""
    """How the rows differ from the published ones."""


def load(task: Task, folder: str) -> Benchmark:
    """A task's benchmark, read and checked.

    Raises:
        MissingDataError: if a file is not there; it says where the data is published.
        DataError: if a file cannot be read, or as ``check``.
    """
    try:
        return check(task, task.read(folder))
    except MissingDataError as error:
        raise MissingDataError(f"{error} It is published in {task.source}; licence: {task.licence}.") from error


def check(task: Task, benchmark: Benchmark) -> Benchmark:
    """Refuse a benchmark that would give wrong numbers.

    Returns:
        The benchmark; its note tells too of rows that splits share, where they are few.

    Raises:
        DataError: for a missing or empty split, labels that are not numbers or of no class, another number of classes
            than the published one, or more than MAX_SHARED of the test rows in train or valid.
    """
    needed = SPLITS if task.kind in TRAINED else ("test",)
    for name in needed:
        if name not in benchmark.splits:
            raise DataError(f"{task.name}: has no split {name!r}; it must have {', '.join(needed)}. {_again(task)}")
    if len(benchmark.classes) != task.num_classes:
        raise DataError(
            f"{task.name}: has {len(benchmark.classes):,} classes; the published data has {task.num_classes:,}. "
            f"{_again(task)}"
        )
    for name, split in benchmark.splits.items():
        _check_split(task, benchmark, name, split)
    notes = [benchmark.note, *(_shared(task, benchmark, *pair) for pair in _PAIRS)]
    return replace(benchmark, note="; ".join(note for note in notes if note))


_PAIRS = (("train", "test"), ("valid", "test"), ("train", "valid"))


def listing(folder: str) -> list[Listed]:
    """What the data folder has of each task, in the order of TASKS."""
    return [describe(task, folder) for task in TASKS]


def describe(task: Task, folder: str) -> Listed:
    """What the data folder has of a task."""
    try:
        benchmark = load(task, folder)
    except MissingDataError as error:
        return Listed(task=task, state="missing", problem=str(error))
    except (DataError, ConfigError) as error:
        return Listed(task=task, state="wrong", problem=str(error))
    lengths = np.array([len(sequence) for sequence in benchmark.sequences])
    files = "".join(f"{digest}  {path}\n" for path, digest in sorted(benchmark.files.items()))
    return Listed(
        task=task,
        state="ready",
        rows={name: len(split.labels) for name, split in benchmark.splits.items()},
        num_proteins=len(lengths),
        num_labels=len(benchmark.classes) or len(benchmark.texts),
        lengths=(int(lengths.min()), int(np.median(lengths)), int(lengths.max())),
        sha256=hashlib.sha256(files.encode()).hexdigest(),
        note=benchmark.note,
    )


def _check_split(task: Task, benchmark: Benchmark, name: str, split: Split) -> None:
    where = f"{task.name}, {name}"
    labels = split.labels
    if not len(labels):
        raise DataError(f"{where}: has no rows. {_again(task)}")
    if task.kind in ("regression", "similarity"):
        bad = np.flatnonzero(~np.isfinite(labels))
        if len(bad):
            first = f"{labels[bad[0]]}, of {_row_name(benchmark, split, bad[0])}"
            raise DataError(
                f"{where}: {len(bad):,} of {len(labels):,} labels are no finite numbers; the first is {first}. "
                f"{_again(task)}"
            )
    elif task.kind == "labels":
        if labels.shape[1:] != (len(benchmark.classes),):
            raise DataError(
                f"{where}: has {labels.shape[1:]} labels a row; there are {len(benchmark.classes)} classes."
            )
    else:
        what, number = (
            ("texts", len(benchmark.texts)) if task.kind in ("graph", "retrieval") else ("classes", task.num_classes)
        )
        bad = np.flatnonzero((labels < 0) | (labels >= number))
        if len(bad):
            first = f"{labels[bad[0]]} of {_row_name(benchmark, split, bad[0])}"
            raise DataError(f"{where}: the label {first} is none of the {number:,} {what}. {_again(task)}")


def _shared(task: Task, benchmark: Benchmark, first: str, second: str) -> str:
    """A note of the rows of the second split that the first has too; empty where there are none.

    A row is its proteins, in any order; of a graph, its protein and text, since the ends of edges may meet again.
    """
    if first not in benchmark.splits or second not in benchmark.splits:
        return ""
    known = set(_keys(task, benchmark.splits[first]))
    split = benchmark.splits[second]
    shared = [row for row, key in enumerate(_keys(task, split)) if key in known]
    if not shared:
        return ""
    message = f"{len(shared):,} of {len(split.labels):,} rows of {second} are in {first} too"
    if second == "test" and len(shared) > MAX_SHARED * len(split.labels):
        name = _row_name(benchmark, split, shared[0])
        raise DataError(f"{task.name}: {message}, first {name}; at most {MAX_SHARED:.0%} may be. {_again(task)}")
    return message


def _keys(task: Task, split: Split) -> list[tuple[int, ...]]:
    keys = [tuple(sorted(row)) for row in split.proteins_NK.tolist()]
    return [(*key, int(label)) for key, label in zip(keys, split.labels, strict=True)] if task.kind == "graph" else keys


def _row_name(benchmark: Benchmark, split: Split, row: int) -> str:
    return " and ".join(repr(benchmark.ids[place]) for place in split.proteins_NK[row])


def _again(task: Task) -> str:
    return f"Fetch its files again: {task.source}."
