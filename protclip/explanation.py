"""Which residues a text speaks of, as the model sees it: two answers, a number per residue each.

Occlusion asks the model itself: how much worse do protein and text match when these residues are hidden?

    score_j = cos(p, t) − cos(p without the residues of the window round j, t)

Segments are what PDA trains for: W_j of ``losses.segment_alignment``, with the whole text as one property.

Shapes: T texts, R residues that the model sees, C windows, L = R + 2 tokens, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from protclip.errors import RequestError
from protclip.losses.segment_alignment import segment_weights

if TYPE_CHECKING:
    from protclip.embedding import ProtCLIP

WINDOW = 11
"""Residues that are hidden together by default: about three turns of a helix. Chosen, not measured."""


def occlusion(
    model: ProtCLIP,
    sequence: str,
    texts: Sequence[str],
    *,
    window: int = WINDOW,
    stride: int = 1,
    long: Literal["truncate", "error"] = "truncate",
) -> np.ndarray:
    """Drop of the cosine between protein and text when residues are replaced by ``<mask>``, (T, R) float32.

    Positive where the hidden residues speak for the text, negative where they speak against it. The protein is
    embedded once for each window and once whole, whatever the number of texts. ESM-2's rescaling of partly masked
    sequences (``token_dropout``) is left as it is.

    Args:
        model: any.
        sequence: in one-letter code.
        texts: what it is compared with.
        window: residues round a centre that are hidden together, an odd number; at the ends the window is cut.
        stride: residues from one centre to the next; a residue has the number of the nearest centre. Beyond ``window``
            some residues are never hidden themselves.
        long: as in ``ProtCLIP.embed_residues``; of a truncated protein there are the residues that the model sees.

    Raises:
        RequestError: for an even or smaller window than 1, or a stride below 1.
        DataError: for a sequence or a text that cannot be embedded.
    """
    if window < 1 or window % 2 == 0:
        raise RequestError(f"window={window}: an odd number of residues is needed, 1 or more, such as {WINDOW}.")
    if stride < 1:
        raise RequestError(f"stride={stride}: 1 or more residues are needed from one window to the next.")
    text_TD = model.embed_texts(texts)
    ids_L = model.prepare_proteins([sequence], long=long)[0]
    num_residues = len(ids_L) - 2
    center_C = np.minimum(np.arange(0, num_residues, stride) + stride // 2, num_residues - 1)
    distance_CR = np.abs(np.arange(num_residues) - center_C[:, None])
    hidden_CR = distance_CR <= window // 2
    hidden_CL = np.pad(hidden_CR, ((0, 0), (1, 1)))  # <cls> and <eos> always stay
    masked_CL = np.where(hidden_CL, np.asarray(model.protein_tokenizer.mask_id, dtype=ids_L.dtype), ids_L)
    whole_D, *without_CD = model.forward_proteins([ids_L, *masked_CL])
    drop_TC = text_TD @ (whole_D - np.stack(without_CD)).T
    scores_TR: np.ndarray = drop_TC[:, distance_CR.argmin(0)]
    return scores_TR


def segments(
    model: ProtCLIP, sequence: str, texts: Sequence[str], *, long: Literal["truncate", "error"] = "truncate"
) -> np.ndarray:
    """Weights of the residues in each text's dynamic segment, (T, R) float32; rows sum to 1.

    They are W of PDA (Zhou et al. 2025, arXiv:2412.20014) with the model's own threshold and window, the text taken as
    one property and without the noise of training; nothing is hidden, one pass of the protein is enough. A model
    trained without PDA has no prototypes: there the projected text itself is compared with the residues. Nothing was
    trained to make that meaningful, so such numbers are for comparisons.

    Args:
        model: any; trained with PDA where the numbers are to be read as an explanation.
        sequence: in one-letter code.
        texts: what it is compared with.
        long: as in ``ProtCLIP.embed_residues``.

    Raises:
        DataError: for a sequence or a text that cannot be embedded.
    """
    property_1TD = torch.from_numpy(model.embed_properties(texts))[None]
    residue_1RD = torch.from_numpy(model.embed_residues([sequence], long=long)[0])[None]
    everywhere_1R = torch.ones(residue_1RD.shape[:2], dtype=torch.bool)
    on = model.model.architecture.objectives
    weights_1TR = segment_weights(
        property_1TD, residue_1RD, everywhere_1R, threshold=on.threshold, window=on.segment_window
    )
    weights_TR: np.ndarray = weights_1TR[0].numpy()
    return weights_TR


def has_prototypes(model: ProtCLIP) -> bool:
    """True where the model was trained with PDA, so that its segments mean something."""
    return model.model.architecture.objectives.pda > 0


def strongest_stretches(scores_R: np.ndarray, *, share: float = 0.1) -> list[tuple[int, int]]:
    """The residues with the highest numbers, as half-open spans from 0, the one with the highest first.

    Args:
        scores_R: a number for each residue; those that are not positive are left out.
        share: about this share of the residues is taken, and whatever is equal to the last one taken.
    """
    lowest = np.quantile(scores_R, 1 - share, method="higher")
    taken_R = (scores_R >= lowest) & (scores_R > 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], taken_R, [False]]).astype(np.int8)))
    spans = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
    return sorted(spans, key=lambda span: -float(scores_R[span[0] : span[1]].max()))
