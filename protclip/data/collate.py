"""Ragged token ids into padded tensors, and the masks of the objectives.

Shapes: B pairs, L tokens of the longest item of the batch, Q masked residues of the protein that has most,
P properties that are present in the batch, K = 4 properties of a pair, I identities of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from protclip.config import ObjectivesConfig
from protclip.data.masking import places, residue_mask, segment_mask, stream_keys
from protclip.data.tokenize import SHOWN_HASH
from protclip.hashing import hash64
from protclip.protanno.shards import PROPERTIES

Count = TypeVar("Count")
Rows = Sequence[np.ndarray] | Sequence[Sequence[int]]
"""Token ids of several items, each as long as it is."""

NO_TARGET = -100
"""The target of a place that is padding; cross_entropy leaves it out."""


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Of its fields, those that are tensors or such dataclasses go to a device."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with what the function makes of each tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        mapped = {
            name: function(value) if isinstance(value, Tensor) else value.map(function)
            for name, value in values.items()
            if isinstance(value, Tensor | _Tensors)
        }
        return type(self)(**{**values, **mapped})

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedResidues(_Tensors):
    """Which residues are hidden, and what they are."""

    place_BQ: Tensor
    """Token positions; 0 where there is none."""
    target_BQ: Tensor
    """Token ids; NO_TARGET where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PropertyTexts(_Tensors):
    """The properties that are present, in the order of pairs."""

    ids_PL: Tensor
    mask_PL: Tensor
    slot_P: Tensor
    """pair · K + property."""
    text_hash_P: Tensor
    """Of the token ids: properties of one text are no negatives of each other."""
    noise_key_P: Tensor
    """Seed of each one's Gumbel noise."""


class TermCounts(NamedTuple, Generic[Count]):
    """What the mean of each term of the loss runs over."""

    bsr: Count
    """Masked residues."""
    pda: Count
    """Pairs that it aligns, where it is on."""
    mlm: Count
    """Masked residues."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch(_Tensors):
    """Pairs as the model takes them."""

    protein_ids_BL: Tensor
    protein_mask_BL: Tensor
    """True at tokens, False at padding."""
    text_ids_BL: Tensor
    text_mask_BL: Tensor
    identity_BI: Tensor
    """Hashes of the sequence, of the biotext, and of what is shown of it where that is sampled: pairs that share any of
    them are no negatives of each other."""
    counts: TermCounts[int]
    masked_ids_XL: Tensor | None = None
    """Copies of all proteins with ``<mask>`` in them, one after the other: that of MLM first, that of BSR last; one
    copy where they share it or one of them is off."""
    mlm: MaskedResidues | None = None
    bsr: MaskedResidues | None = None
    properties: PropertyTexts | None = None

    @property
    def num_pairs(self) -> int:
        """Pairs in the batch."""
        return len(self.identity_BI)


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """What decides the masks and the noise, beside the accession."""

    objectives: ObjectivesConfig
    seed: int
    epoch: int
    mask_id: int


def pad(rows: Rows, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, L) int64 and the mask (B, L) that is True at tokens."""
    lengths_B = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    mask_BL = np.arange(lengths_B.max()) < lengths_B[:, None]
    ids_BL = np.full(mask_BL.shape, pad_id, dtype=np.int64)
    for ids_L, row, length in zip(ids_BL, rows, lengths_B.tolist(), strict=True):
        ids_L[:length] = row
    return torch.from_numpy(ids_BL), torch.from_numpy(mask_BL)


def collate(pairs: pa.Table, *, protein_pad_id: int, text_pad_id: int, masking: Masking | None = None) -> Batch:
    """Tokenised pairs into one padded batch.

    Args:
        pairs: rows of ``TOKEN_SCHEMA``; of ``PROPERTY_SCHEMA`` where PDA is on.
        protein_pad_id: token id of padding.
        text_pad_id: likewise.
        masking: makes the inputs of MLM, BSR and PDA, those that are on; None for GC alone.
    """
    protein_ids_BL, protein_mask_BL = pad(ragged(pairs.column("protein_ids")), protein_pad_id)
    text_ids_BL, text_mask_BL = pad(ragged(pairs.column("text_ids")), text_pad_id)
    masked_ids_XL = mlm = bsr = properties = None
    if masking is not None:
        accession_hash_B = pairs.column("accession_hash").to_numpy()
        masked_ids_XL, mlm, bsr = _masked(protein_ids_BL, protein_mask_BL, accession_hash_B, masking)
        if masking.objectives.pda > 0:
            properties = _properties(pairs, accession_hash_B, text_pad_id, masking)
    return Batch(
        protein_ids_BL=protein_ids_BL,
        protein_mask_BL=protein_mask_BL,
        text_ids_BL=text_ids_BL,
        text_mask_BL=text_mask_BL,
        identity_BI=identity(pairs),
        counts=TermCounts(bsr=_num_masked(bsr), pda=_num_aligned(properties, masking), mlm=_num_masked(mlm)),
        masked_ids_XL=masked_ids_XL,
        mlm=mlm,
        bsr=bsr,
        properties=properties,
    )


def identity(pairs: pa.Table) -> Tensor:
    """Hashes of the sequence, the biotext and, where it is sampled, the shown text of each pair, (B, I) int64."""
    names = [name for name in ("sequence_hash", "text_hash", SHOWN_HASH) if name in pairs.column_names]
    columns = [pairs.column(name).to_numpy().view(np.int64) for name in names]
    return torch.from_numpy(np.stack(columns, axis=1))


def ragged(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Views of the lists of a column."""
    return _lists(column.combine_chunks())


def _lists(array: pa.ListArray) -> list[np.ndarray]:
    values = array.values.to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(offsets)]


def _masked(
    ids_BL: Tensor, mask_BL: Tensor, accession_hash_B: np.ndarray, masking: Masking
) -> tuple[Tensor | None, MaskedResidues | None, MaskedResidues | None]:
    """The masked copies of the proteins, and what is hidden in them: of MLM, of BSR."""
    objectives, seed, epoch = masking.objectives, masking.seed, masking.epoch
    keys = [
        stream_keys(accession_hash_B, seed=seed, epoch=epoch, purpose=purpose)
        for purpose in ("segment lengths", "segment starts", "masked residues")
    ]
    num_residues_B = mask_BL.sum(1).numpy() - 2  # between <cls> and <eos>
    nowhere_BR = np.zeros((len(ids_BL), ids_BL.shape[1] - 2), dtype=bool)
    fraction = objectives.mask_fraction
    masks: dict[str, np.ndarray] = {}
    if objectives.bsr > 0:
        lengths = {"min_length": objectives.min_segment, "max_length": objectives.max_segment}
        masks["bsr"] = segment_mask(keys[0], keys[1], num_residues_B, fraction=fraction, **lengths)
    shared = objectives.masked_passes == "shared" and objectives.bsr > 0
    if objectives.mlm > 0:
        taken_BR = masks["bsr"] if shared else nowhere_BR
        masks["mlm"] = residue_mask(keys[2], num_residues_B, taken_BR, fraction=fraction)

    copies = [masks[name] for name in ("mlm", "bsr") if name in masks]
    if shared and len(copies) == 2:
        copies = [copies[0] | copies[1]]
    masked_ids_XL = None
    if copies:
        masked_ids_XL = ids_BL.repeat(len(copies), 1)
        masked_ids_XL[:, 1:-1].masked_fill_(torch.from_numpy(np.concatenate(copies)), masking.mask_id)
    mlm, bsr = (_hidden(ids_BL, masks[name]) if name in masks else None for name in ("mlm", "bsr"))
    return masked_ids_XL, mlm, bsr


def _hidden(ids_BL: Tensor, masked_BR: np.ndarray) -> MaskedResidues:
    residue_BQ, real_BQ = (torch.from_numpy(array) for array in places(masked_BR))
    place_BQ = torch.where(real_BQ, residue_BQ + 1, 0)  # <cls> stands before the residues
    return MaskedResidues(place_BQ=place_BQ, target_BQ=ids_BL.gather(1, place_BQ).masked_fill(~real_BQ, NO_TARGET))


def _properties(pairs: pa.Table, accession_hash_B: np.ndarray, pad_id: int, masking: Masking) -> PropertyTexts | None:
    """The properties that are there; None where no pair has one."""
    flat = pairs.column("property_ids").combine_chunks().flatten()
    assert len(flat) == len(PROPERTIES) * len(pairs)
    rows = _lists(flat)
    slot_P = np.flatnonzero([len(row) > 0 for row in rows])
    if len(slot_P) == 0:
        return None
    ids_PL, mask_PL = pad([rows[slot] for slot in slot_P], pad_id)
    pair_P, property_P = np.divmod(slot_P, len(PROPERTIES))
    keys_KB = np.stack(
        [
            stream_keys(accession_hash_B, seed=masking.seed, epoch=masking.epoch, purpose=f"noise of {name}")
            for name in PROPERTIES
        ]
    )
    return PropertyTexts(
        ids_PL=ids_PL,
        mask_PL=mask_PL,
        slot_P=torch.from_numpy(slot_P),
        text_hash_P=torch.from_numpy(
            np.array([hash64(rows[slot].tobytes().hex()) for slot in slot_P], np.uint64).view(np.int64)
        ),
        noise_key_P=torch.from_numpy(keys_KB[property_P, pair_P].view(np.int64)),
    )


def _num_masked(residues: MaskedResidues | None) -> int:
    return 0 if residues is None else int((residues.target_BQ != NO_TARGET).sum())


def _num_aligned(properties: PropertyTexts | None, masking: Masking | None) -> int:
    if properties is None or masking is None:
        return 0
    least = 2 if masking.objectives.pda_negatives == "properties" else 1
    return int((torch.bincount(properties.slot_P // len(PROPERTIES)) >= least).sum())
