"""Retrieval between the proteins and the texts of a folder of pairs, as a task."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa

from protclip import files
from protclip.data.tokenize import biotexts
from protclip.errors import DataError
from protclip.evaluation.task import Benchmark, Split, Task
from protclip.manifest import FILE_NAME
from protclip.protanno.shards import PROPERTIES, read_pairs, read_row_group

NAME = "retrieval"


def retrieval_task(folder: str) -> Task:
    """Find the text of each protein of a test split, and the protein of each text."""
    return Task(
        name=NAME,
        title="Retrieval, text → protein",
        kind="retrieval",
        metric="recall@1",
        read=partial(_read, folder=folder),
        published="the test split of a folder of pairs",
        source="protclip curate",
        licence="of the pairs; UniProt's data are CC BY 4.0",
    )


def _read(_data: str, *, folder: str) -> Benchmark:
    """The test split; raises DataError if there is none."""
    columns = ["accession", "sequence", *PROPERTIES]
    groups = read_pairs(folder).row_groups("test")
    if not groups:
        raise DataError(f"{folder}: has no test split; curate with --test-fraction above 0.")
    rows = pa.concat_tables([read_row_group(group, columns=columns) for group in groups])
    texts = biotexts(rows)
    sequences = rows.column("sequence").to_pylist()
    place: dict[str, int] = {}
    text_place: dict[str, int] = {}
    for sequence, text in zip(sequences, texts, strict=True):
        place.setdefault(sequence, len(place))
        text_place.setdefault(text, len(text_place))
    accessions = dict(zip(reversed(sequences), reversed(rows.column("accession").to_pylist()), strict=True))
    manifest = files.join(folder, FILE_NAME)
    return Benchmark(
        ids=tuple(accessions[sequence] for sequence in place),
        sequences=tuple(place),
        splits={
            "test": Split(
                proteins_NK=np.array([[place[sequence]] for sequence in sequences], np.int64),
                labels=np.array([text_place[text] for text in texts], np.int64),
            )
        },
        texts=tuple(text_place),
        files={FILE_NAME: files.sha256(manifest)},
    )
