"""Biotexts of some of a protein's properties: what an epoch shows the text encoder where texts are sampled.

Shapes: N rows, K = 4 properties of a pair.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from protclip.data.masking import stream_keys, uniforms
from protclip.hashing import hash64
from protclip.protanno.biotext import property_texts, without_evidence
from protclip.protanno.shards import PROPERTIES


def sampled_biotexts(pairs: pa.Table, *, seed: int, epoch: int) -> list[str]:
    """Some of each row's properties in any order, joined by a space; by (seed, epoch, accession) alone.

    Of the T properties that are present 1 to T are taken, each number as likely as another, and each choice and order
    of so many. They are without evidence, as questions are. An entry without any property has an empty text.

    Args:
        pairs: with the columns ``accession`` and PROPERTIES.
        seed: of the run.
        epoch: from 0.
    """
    columns = (pairs.column(name).to_pylist() for name in PROPERTIES)
    texts = [property_texts(*properties) for properties in zip(*columns, strict=True)]
    present_NK = np.array([[bool(text) for text in row] for row in texts], dtype=bool).reshape(-1, len(PROPERTIES))
    hash_N = np.array([hash64(accession) for accession in pairs.column("accession").to_pylist()], dtype=np.uint64)
    drawn = uniforms(stream_keys(hash_N, seed=seed, epoch=epoch, purpose="properties shown"), 1 + len(PROPERTIES))
    num_shown_N = 1 + (drawn[:, 0] * present_NK.sum(1)).astype(np.int64)
    order_NK = np.argsort(np.where(present_NK, drawn[:, 1:], np.inf), axis=1)  # those that are absent last
    return [
        " ".join(without_evidence(text) for i in order_K[:num_shown] if (text := row[i]))
        for row, order_K, num_shown in zip(texts, order_NK, num_shown_N, strict=True)
    ]
