"""Zero-shot classification by ProtST's prompts: the test split of a task, and a description of each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from protclip.errors import DataError
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.tables import read_columns
from protclip.evaluation.task import Benchmark, Split


def read_zero_shot(root: str, read: Callable[[str], Benchmark], prompts: str, published: int) -> Benchmark:
    """A task's test split with a description of each class.

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
    test = task.splits["test"]
    used, proteins = np.unique(test.proteins_NK, return_inverse=True)
    count = len(test.labels)
    return replace(
        task,
        ids=tuple(task.ids[place] for place in used),
        sequences=tuple(task.sequences[place] for place in used),
        splits={"test": Split(proteins_NK=proteins.reshape(test.proteins_NK.shape), labels=test.labels)},
        texts=tuple(text for _, text in rows),
        files={**task.files, **folder.sha256},
        note="" if count == published else f"test: {count:,} rows where {published:,} were published",
    )
