"""Retrieval between the proteins and the texts of a folder of pairs, as tasks: by the whole text, and by each property.

Rows of organisms that have enough of them are scored beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from protclip import files
from protclip.errors import DataError, MissingDataError
from protclip.evaluation.task import Benchmark, Split, Task
from protclip.manifest import FILE_NAME
from protclip.protanno.biotext import biotext
from protclip.protanno.shards import PROPERTIES, read_pairs, read_row_group

NAME = "retrieval"
MIN_GROUP_ROWS = 20
"""Of an organism that is scored beside."""
MAX_GROUPS = 20
"""Organisms that are scored beside, those with the most rows."""


def retrieval_tasks(folder: str) -> list[Task]:
    """Find the text of each protein of a test split and the protein of each text; likewise with one property's text."""
    return [_task(folder, NAME, "Retrieval, text → protein", PROPERTIES)] + [
        _task(folder, f"{NAME}_{name}", f"Retrieval by {name.replace('_', ' ')} alone", (name,)) for name in PROPERTIES
    ]


def _task(folder: str, name: str, title: str, properties: Sequence[str]) -> Task:
    return Task(
        name=name,
        title=title,
        kind="retrieval",
        metric="recall@1",
        read=partial(_read, folder=folder, properties=properties),
        published="the test split of a folder of pairs",
        source="protclip curate",
        licence="of the pairs; UniProt's data are CC BY 4.0",
    )


def _read(_data: str, *, folder: str, properties: Sequence[str]) -> Benchmark:
    """The test split, as far as it has one of the properties.

    Raises:
        DataError: if there is no test split.
        MissingDataError: if no row has one of the properties.
    """
    rows = [row for row in _test_rows(folder) if any(row[name] for name in properties)]
    if not rows:
        raise MissingDataError(f"{folder}: no pair of its test split has {' or '.join(properties)}.")
    texts = [biotext(*(row[name] if name in properties else None for name in PROPERTIES)) for row in rows]
    place: dict[str, int] = {}
    text_place: dict[str, int] = {}
    for row, text in zip(rows, texts, strict=True):
        place.setdefault(row["sequence"], len(place))
        text_place.setdefault(text, len(text_place))
    accessions = {row["sequence"]: row["accession"] for row in reversed(rows)}
    manifest = files.join(folder, FILE_NAME)
    return Benchmark(
        ids=tuple(accessions[sequence] for sequence in place),
        sequences=tuple(place),
        splits={
            "test": Split(
                proteins_NK=np.array([[place[row["sequence"]]] for row in rows], np.int64),
                labels=np.array([text_place[text] for text in texts], np.int64),
            )
        },
        texts=tuple(text_place),
        groups={"organism": _frequent([row["organism"] or "" for row in rows])},
        files={FILE_NAME: files.sha256(manifest)},
    )


@lru_cache(maxsize=1)
def _test_rows(folder: str) -> list[dict[str, Any]]:
    """The rows of the test split, for all tasks; raises DataError if there is none."""
    groups = read_pairs(folder).row_groups("test")
    if not groups:
        raise DataError(f"{folder}: has no test split; curate with --test-fraction above 0.")
    columns = ["accession", "sequence", "organism", *PROPERTIES]
    rows: list[dict[str, Any]] = pa.concat_tables([read_row_group(one, columns=columns) for one in groups]).to_pylist()
    return rows


def _frequent(values: Sequence[str]) -> tuple[str, ...]:
    """Those with enough rows; empty for the others."""
    counts = Counter(value for value in values if value)
    kept = {value for value, count in counts.most_common(MAX_GROUPS) if count >= MIN_GROUP_ROWS}
    return tuple(value if value in kept else "" for value in values)
