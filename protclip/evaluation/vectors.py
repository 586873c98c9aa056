"""The vectors of a model that tasks are predicted from, made once for all of them by the stage ``embed``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.embeddings.embed import embed
from protclip.embeddings.reading import read_embeddings
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import DataError
from protclip.hashing import hash64
from protclip.inputs import Dtype, Layer
from protclip.manifest import FILE_NAME
from protclip.units import Run

Kind = Literal["hidden", "projection", "texts"]
"""Proteins by a layer of their encoder, or texts."""
_Table = tuple[dict[str, int], np.ndarray]


def write_inputs(folder: str, sequences: Sequence[str], texts: Sequence[str]) -> None:
    """Write the proteins and texts of all tasks, each once, where ``make_vectors`` finds them.

    What is there stays: an embedding that was interrupted goes on with the very file that it began with.
    """
    for name, column, values in (("proteins", "sequence", sequences), ("texts", "text", texts)):
        if files.exists(path := files.join(folder, f"{name}.parquet")):
            continue
        distinct = sorted(set(values))
        table = pa.table({"id": pa.array(map(_key, distinct), pa.string()), column: pa.array(distinct, pa.string())})
        with files.atomic_write(path) as stream:
            pq.write_table(table, stream)


def make_vectors(
    inputs: str, checkpoint: str, output: str, kind: Kind, *, dtype: Dtype, use_gpu: bool, run: Run
) -> None:
    """Embed the inputs of ``write_inputs`` with a model; what is there already is not done again.

    Args:
        inputs: the folder that has them.
        checkpoint: of the model.
        output: folder of the model's vectors.
        kind: what is embedded.
        dtype: of the matrix products.
        use_gpu: give each actor a GPU.
        run: where it is done.
    """
    target = files.join(output, kind)
    if files.exists(files.join(target, FILE_NAME)):
        return
    embed(
        EmbedConfig(
            inputs=(files.join(inputs, f"{'texts' if kind == 'texts' else 'proteins'}.parquet"),),
            checkpoint=checkpoint,
            output=target,
            content="text" if kind == "texts" else "protein",
            layer="hidden" if kind == "hidden" else "projection",
            dtype=dtype,
            use_gpu=use_gpu,
        ),
        run,
    )


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of one model."""

    folder: str

    def proteins(self, sequences: Sequence[str], layer: Layer) -> np.ndarray:
        """(n, D) float32, or (n, H) of the hidden layer.

        Raises:
            DataError: if one could not be embedded.
        """
        return self._rows(layer, sequences)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32."""
        return self._rows("texts", texts)

    def _rows(self, name: str, values: Sequence[str]) -> np.ndarray:
        place, vectors_ND = _table(files.join(self.folder, name))
        if missing := [value for value in values if _key(value) not in place]:
            raise DataError(
                f"{len(missing)} of {len(values)} items have no embedding, such as {missing[0]!r:.60}; "
                f"{files.join(self.folder, name)}/quarantine.jsonl says why."
            )
        return vectors_ND[[place[_key(value)] for value in values]]


@lru_cache(maxsize=4)
def _table(folder: str) -> _Table:
    embeddings = read_embeddings(folder)
    return {name: number for number, name in enumerate(embeddings.ids.tolist())}, embeddings.vectors


def _key(value: str) -> str:
    return f"{hash64(value):016x}"
