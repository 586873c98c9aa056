"""Ragged token ids into padded tensors.

Shapes: B pairs, L tokens of the longest item of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

Rows = Sequence[np.ndarray] | Sequence[Sequence[int]]
"""Token ids of several items, each as long as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Pairs as the model takes them."""

    protein_ids_BL: Tensor
    protein_mask_BL: Tensor
    """True at tokens, False at padding."""
    text_ids_BL: Tensor
    text_mask_BL: Tensor
    identity_B2: Tensor
    """Hashes of the sequence and of the biotext: pairs that share either are no negatives of each other."""

    @property
    def num_pairs(self) -> int:
        """Pairs in the batch."""
        return len(self.identity_B2)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(**{name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__})


def pad(rows: Rows, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, L) int64 and the mask (B, L) that is True at tokens."""
    lengths_B = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    mask_BL = np.arange(lengths_B.max()) < lengths_B[:, None]
    ids_BL = np.full(mask_BL.shape, pad_id, dtype=np.int64)
    ids_BL[mask_BL] = np.concatenate([np.asarray(row) for row in rows])
    return torch.from_numpy(ids_BL), torch.from_numpy(mask_BL)


def collate(pairs: pa.Table, *, protein_pad_id: int, text_pad_id: int) -> Batch:
    """Tokenised pairs (``TOKEN_SCHEMA``) into one padded batch."""
    protein_ids_BL, protein_mask_BL = pad(ragged(pairs.column("protein_ids")), protein_pad_id)
    text_ids_BL, text_mask_BL = pad(ragged(pairs.column("text_ids")), text_pad_id)
    return Batch(
        protein_ids_BL=protein_ids_BL,
        protein_mask_BL=protein_mask_BL,
        text_ids_BL=text_ids_BL,
        text_mask_BL=text_mask_BL,
        identity_B2=identity(pairs),
    )


def identity(pairs: pa.Table) -> Tensor:
    """Hashes of the sequence and the biotext of each pair, (B, 2) int64."""
    columns = [pairs.column(name).to_numpy().view(np.int64) for name in ("sequence_hash", "text_hash")]
    return torch.from_numpy(np.stack(columns, axis=1))


def ragged(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Views of the lists of a column."""
    array = column.combine_chunks()
    values = array.values.to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(offsets)]
