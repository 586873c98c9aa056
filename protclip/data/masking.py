"""Which residues are masked: a function of (seed, epoch, accession) alone.

Each protein has its own counter-based stream of random numbers (SplitMix64, Steele et al. 2014), so that its masks do
not depend on the batch, the padding, the worker or the order, and a whole batch is drawn at once.

Source: Zhou et al. 2025 (arXiv:2412.20014), the masks of MLM and of BSR.
Shapes: B proteins, R residues of the longest, S segments at most. Places are those of residues, from 0: special tokens
and padding have none.
"""

from __future__ import annotations

import numpy as np

from protclip.hashing import GOLDEN, hash64, splitmix64


def stream_keys(accession_hash_B: np.ndarray, *, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """A key (B,) uint64 for each protein's stream of this epoch and purpose."""
    return splitmix64(accession_hash_B.astype(np.uint64) ^ np.uint64(hash64(seed, epoch, purpose)))


def uniforms(key_B: np.ndarray, count: int) -> np.ndarray:
    """The first numbers of each stream, uniform in [0, 1), (B, count); number i does not depend on ``count``."""
    counter_C = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    number_BC: np.ndarray = (splitmix64(key_B[:, None] + counter_C) >> np.uint64(11)) * 2.0**-53
    return number_BC


def residue_mask(key_B: np.ndarray, num_residues_B: np.ndarray, taken_BR: np.ndarray, *, fraction: float) -> np.ndarray:
    """MLM: single residues, each place as likely as another, (B, R) bool.

    Args:
        key_B: of ``stream_keys``.
        num_residues_B: residues of each protein.
        taken_BR: places that may not be masked.
        fraction: share of each protein's own residues, rounded; at least one residue, at most what is not taken.
    """
    free_BR = (np.arange(taken_BR.shape[1]) < num_residues_B[:, None]) & ~taken_BR
    quota_B = np.minimum(_quota(num_residues_B, fraction), free_BR.sum(1))
    draw_BR = np.where(free_BR, uniforms(key_B, free_BR.shape[1]), 2.0)
    # Those up to the quota's last in order, which is faster to find than their places. Were two draws the same, which
    # one in 10¹⁰ proteins has, one residue more could be masked.
    sorted_BR = np.sort(draw_BR, axis=1)
    last_B1 = np.take_along_axis(sorted_BR, np.maximum(quota_B - 1, 0)[:, None], axis=1)
    masked_BR: np.ndarray = (draw_BR <= last_B1) & free_BR
    return masked_BR


def segment_mask(
    length_key_B: np.ndarray,
    start_key_B: np.ndarray,
    num_residues_B: np.ndarray,
    *,
    fraction: float,
    min_length: int,
    max_length: int,
) -> np.ndarray:
    """BSR: contiguous segments with at least one residue between two of them, (B, R) bool.

    Lengths are uniform in [min_length, max_length] and drawn until ``fraction`` of the protein's own residues is
    covered, so that the last segment may exceed it. A protein shorter than ``max_length`` draws up to its own length;
    one shorter than ``min_length`` has no segment.

    Args:
        length_key_B: of ``stream_keys``, for the lengths.
        start_key_B: likewise, for the places.
        num_residues_B: residues of each protein.
        fraction: share of the residues that is to be covered.
        min_length: residues of the shortest segment.
        max_length: residues of the longest.
    """
    num_residues_B1 = num_residues_B[:, None]
    quota_B1 = _quota(num_residues_B, fraction)[:, None]
    index_S = np.arange(-(-int(quota_B1.max(initial=1)) // min_length))
    choices_B1 = np.clip(num_residues_B1, min_length, max_length) - min_length + 1
    length_BS = min_length + (uniforms(length_key_B, len(index_S)) * choices_B1).astype(np.int64)
    end_BS = np.cumsum(length_BS, axis=1)
    used_BS = (end_BS - length_BS < quota_B1) & (end_BS + index_S <= num_residues_B1)

    # The residues outside are dealt to the gaps: sorted draws in [0, spare] keep the order, and each segment moves on
    # by those before it and one residue between.
    num_used_B1 = used_BS.sum(1, keepdims=True)
    spare_B1 = num_residues_B1 - (length_BS * used_BS).sum(1, keepdims=True) - np.maximum(num_used_B1 - 1, 0)
    draw_BS = (uniforms(start_key_B, len(index_S)) * (spare_B1 + 1)).astype(np.int64)
    shift_BS = np.sort(np.where(used_BS, draw_BS, np.iinfo(np.int64).max), axis=1)
    row_M, column_M = np.nonzero(used_BS)
    start_M = (np.where(used_BS, shift_BS, 0) + end_BS - length_BS + index_S)[row_M, column_M]
    edge_BR = np.zeros((len(num_residues_B), int(num_residues_B.max(initial=0)) + 1), dtype=np.int8)
    edge_BR[row_M, start_M] += 1
    edge_BR[row_M, start_M + length_BS[row_M, column_M]] -= 1
    return np.cumsum(edge_BR, axis=1, dtype=np.int8)[:, :-1].astype(bool)


def places(masked_BR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places that are masked, packed to the left: (B, Q) int64 and which of them are real, (B, Q) bool; Q ≥ 1."""
    row_M, place_M = np.nonzero(masked_BR)
    count_B = masked_BR.sum(1)
    slot_M = np.arange(len(row_M)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
    place_BQ = np.zeros((len(masked_BR), max(1, int(count_B.max(initial=0)))), dtype=np.int64)
    place_BQ[row_M, slot_M] = place_M
    return place_BQ, np.arange(place_BQ.shape[1]) < count_B[:, None]


def _quota(num_residues_B: np.ndarray, fraction: float) -> np.ndarray:
    """Residues to mask: the nearest whole number, at least one."""
    return np.maximum(1, np.floor(num_residues_B * fraction + 0.5).astype(np.int64))
