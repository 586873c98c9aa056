"""What runs in actors of batch jobs: shells round ``protclip``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.data.tokenize import biotexts
from protclip.embedding import ProtCLIP
from protclip.index.embeddings import METADATA
from protclip.protanno.shards import RowGroup, read_row_group

Content = Literal["protein", "text"]


class EmbedChunk:
    """Embeds the rows of one chunk and writes them as one part.

    An item names the chunk's file and row groups, whether they are ``pairs``, and the part to write.
    """

    def __init__(self, checkpoint: str, content: Content, output: str, *, use_gpu: bool) -> None:
        self.model = ProtCLIP.from_pretrained(checkpoint, device="cuda" if use_gpu else "cpu")
        self.content = content
        self.output = output

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        groups = [RowGroup(path=item["path"], index=i, num_rows=0) for i in item["row_groups"]]
        rows = pa.concat_tables([read_row_group(group) for group in groups])
        if item["pairs"]:
            rows = items_of_pairs(rows, self.content)
        if self.content == "protein":
            vectors_ND = self.model.embed_proteins(rows.column("sequence").to_pylist())
        else:
            vectors_ND = self.model.embed_texts(rows.column("text").to_pylist())
        with files.atomic_write(files.join(self.output, item["part"])) as stream:
            pq.write_table(part_table(rows, vectors_ND), stream, compression="zstd")
        return {"part": item["part"], "rows": len(rows)}


def items_of_pairs(pairs: pa.Table, content: Content) -> pa.Table:
    """Rows of the pairs' schema as rows to embed: METADATA's columns and the sequence."""
    columns = {
        **{name: pairs.column(name) for name in ("accession", "sequence", "organism", "organism_id", "reviewed", "ec")},
        "name": pc.coalesce(pairs.column("display_name"), pairs.column("name")),
        "length": pc.cast(pc.utf8_length(pairs.column("sequence")), pa.int32()),
        "text": pa.array(biotexts(pairs) if content == "text" else [None] * len(pairs), pa.string()),
    }
    return pa.table(columns)


def part_table(rows: pa.Table, vectors_ND: np.ndarray) -> pa.Table:
    """METADATA's columns and the embeddings, as a part holds them."""
    flat = pa.array(np.ascontiguousarray(vectors_ND).reshape(-1), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
    return rows.select(METADATA.names).cast(METADATA).append_column("embedding", column)
