"""Zero-shot classification by ProtST's prompts: the rows of a task, and a description of each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from protclip.errors import DataError
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.tables import read_columns
from protclip.evaluation.task import Benchmark


def read_zero_shot(root: str, read: Callable[[str], Benchmark], prompts: str, published: int) -> Benchmark:
    """A task with a description of each class; its other splits are for an ensemble with a supervised head.

    Args:
        root: the data folder.
        read: of the task.
        prompts: name of the file of descriptions, ``id`` and ``name``, in the order of the classes.
        published: rows of the published test split.

    Raises:
        DataError: as of the task, or if the descriptions are not one for each class.
    """
    folder = DataFolder(root)
    path = folder.need(prompts)
    rows = [(number, text.strip()) for _, (number, text) in read_columns(path, ["id"], ["name"])]
    task = read(root)
    if [number for number, _ in rows] != [str(place) for place in range(len(task.classes))]:
        raise DataError(f"{path}: has {len(rows)} rows; it must have one for each of the {len(task.classes)} classes.")
    count = len(task.splits["test"].labels)
    return replace(
        task,
        texts=tuple(text for _, text in rows),
        files={**task.files, **folder.sha256},
        note="" if count == published else f"test: {count:,} rows where {published:,} were published",
    )
