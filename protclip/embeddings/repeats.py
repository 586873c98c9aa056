"""Rows whose value came before: their vectors are copied from the part of the first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from protclip import files
from protclip.embeddings.blocks import (
    BlockItem,
    PartReport,
    part_counts,
    part_name,
    parts_folder,
    place_of,
    read_block,
)
from protclip.embeddings.reading import LONG, read_part
from protclip.embeddings.settings import EmbedConfig
from protclip.embeddings.writing import write_part
from protclip.uniprot.entry import RefusedError
from protclip.units import report_path


def copy_repeats(item: BlockItem, *, config: EmbedConfig, work: str) -> PartReport:
    """The part of a block of repeats, each row with the vector of the first one of its value.

    The parts of all other blocks are committed.
    """
    unit = int(item["unit"])
    assert config.content is not None
    rows = read_block(item, config.content)
    value = "sequence_hash" if config.content == "protein" else "text"
    part_of_row, wanted = rows["same_as"].to_numpy(), rows[value].to_pylist()
    long: list[str | None] = [None] * len(rows)
    vector_of_row: dict[int, np.ndarray] = {}
    for number in np.unique(part_of_row).tolist():
        written = files.read_json(report_path(parts_folder(work), part_name(number)))["files"]
        for name in (name for name in written if name.startswith("part-") and name.endswith(".parquet")):
            vectors_ND, metadata, long_of_part = read_part(config.output, name, written)
            first = {key: i for i, key in enumerate(metadata[value].to_pylist())}
            for i in np.flatnonzero(part_of_row == number).tolist():
                if (at := first.get(wanted[i])) is not None:
                    vector_of_row[i], long[i] = vectors_ND[at], long_of_part[at]
    refused = [
        RefusedError("the same as one that was refused", f"in part {part_of_row[i]}", "what can be embedded").at(
            **place_of(rows, i)
        )
        for i in range(len(rows))
        if i not in vector_of_row
    ]
    kept = sorted(vector_of_row)
    rows = rows.append_column(LONG, pa.array(long, LONG.type)).take(pa.array(kept, pa.int64()))
    written = {}
    if kept:
        vectors_ND = np.stack([vector_of_row[i] for i in kept])
        form = config.format
        written = write_part(config.output, unit, rows, vectors_ND, form=form, precision=config.precision)
    return {
        "number": unit,
        "read": len(wanted),
        "reused": 0,
        **part_counts(rows, config.content, residues=0),
        "refused": [entry.record() for entry in refused],
        "files": written,
    }
