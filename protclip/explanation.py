"""Which residues a text speaks of, as the model sees it: two answers, a number per residue each.

Occlusion asks the model itself: how much worse do protein and text match when these residues are hidden?

    score_j = cos(p, t) − cos(p without the residues of the window round j, t)

Segments are what PDA trains for: W_j of ``losses.segment_alignment``, with the whole text as one property.

Shapes: T texts, R residues that the model sees, C windows, P = C + 1 passes, L = R + 2 tokens, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from protclip.errors import RequestError
from protclip.model.dynamic_segments import segment_weights

if TYPE_CHECKING:
    from protclip.questions import Explanation
    from protclip.trained_model import ProtCLIP

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
    passes = occlusion_passes(model, sequence, window=window, stride=stride, long=long)
    return passes.scores(model.embed_texts(texts), model.forward_proteins(passes.ids(passes.all)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Passes:
    """What occlusion has the model see of a protein: first the whole, then the same without each window.

    Some may be embedded now and others later; ``scores`` takes all of their embeddings. With three times the stride
    they are some of the same, and at most one other at the end: 3s·i + 3s//2 = s·(3i + 1) + s//2.
    """

    ids_L: np.ndarray
    """Tokens of the protein."""
    mask_id: int
    window: int
    stride: int

    @property
    def num_residues(self) -> int:
        """That the model sees."""
        return len(self.ids_L) - 2

    @property
    def centers(self) -> np.ndarray:
        """The residue in the middle of each window, from 0, ascending; (C,)."""
        return np.minimum(np.arange(0, self.num_residues, self.stride) + self.stride // 2, self.num_residues - 1)

    @property
    def all(self) -> list[int | None]:
        """Each pass by its window's centre; the first is that of the whole, None."""
        return [None, *self.centers.tolist()]

    def ids(self, some: Iterable[int | None]) -> list[np.ndarray]:
        """Tokens of some passes, by their windows' centres."""
        half, last = self.window // 2, self.num_residues - 1
        rows = []
        for center in some:
            ids_L = self.ids_L.copy()
            if center is not None:
                # <cls> and <eos> always stay.
                ids_L[1 + max(0, center - half) : 2 + min(last, center + half)] = self.mask_id
            rows.append(ids_L)
        return rows

    def scores(self, text_TD: np.ndarray, protein_PD: np.ndarray) -> np.ndarray:
        """What ``occlusion`` gives, (T, R), from the embeddings of texts and of all passes, of the whole first."""
        center_C = self.centers
        drop_TC = text_TD @ (protein_PD[0] - protein_PD[1:]).T
        # Of two centres that are equally near, the first.
        nearest_R = np.searchsorted((center_C[:-1] + center_C[1:]) / 2, np.arange(self.num_residues))
        scores_TR: np.ndarray = drop_TC[:, nearest_R]
        return scores_TR


def occlusion_passes(
    model: ProtCLIP,
    sequence: str,
    *,
    window: int = WINDOW,
    stride: int = 1,
    long: Literal["truncate", "error"] = "truncate",
) -> Passes:
    """The passes of a protein; arguments and errors are those of ``occlusion``."""
    if window < 1 or window % 2 == 0:
        raise RequestError(f"window={window}: an odd number of residues is needed, 1 or more, such as {WINDOW}.")
    if stride < 1:
        raise RequestError(f"stride={stride}: 1 or more residues are needed from one window to the next.")
    (ids_L,) = model.prepare_proteins([sequence], long=long)
    return Passes(ids_L=ids_L, mask_id=model.protein_tokenizer.mask_id, window=window, stride=stride)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Steps:
    """An explanation in steps: ``answer(text_side(), embed(passes.all))`` is all; a server takes some at a time."""

    model: ProtCLIP
    sequence: str
    """Its residues, checked."""
    text: str
    accession: str | None
    passes: Passes

    def text_side(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The text's embedding, (1, D), and the weights of its segment, (R,); None of a model without PDA."""
        segment_R = segments(self.model, self.sequence, [self.text])[0] if has_prototypes(self.model) else None
        return self.model.embed_texts([self.text]), segment_R

    def embed(self, some: Iterable[int | None]) -> np.ndarray:
        """Embeddings (n, D) of some passes."""
        return self.model.forward_proteins(self.passes.ids(some))

    def answer(self, text_side: tuple[np.ndarray, np.ndarray | None], protein_PD: np.ndarray) -> Explanation:
        """The explanation, from the embeddings of all passes."""
        from protclip.questions import Explanation  # which needs the index's library

        text_1D, segment_R = text_side
        return Explanation(
            model=self.model.fingerprint,
            accession=self.accession,
            text=self.text,
            residues=self.sequence[: self.passes.num_residues],
            length=len(self.sequence),
            window=self.passes.window,
            stride=self.passes.stride,
            occlusion=self.passes.scores(text_1D, protein_PD)[0].tolist(),
            segments=None if segment_R is None else segment_R.tolist(),
        )


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


def strongest_stretches(scores_R: np.ndarray) -> list[tuple[int, int]]:
    """The residues with the highest numbers, as half-open spans from 0, the one with the highest first.

    Args:
        scores_R: a number for each residue. About a tenth of the residues is taken, and whatever is equal to the last
            one taken, but none that is not positive.
    """
    lowest = np.quantile(scores_R, 0.9, method="higher")
    taken_R = (scores_R >= lowest) & (scores_R > 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], taken_R, [False]]).astype(np.int8)))
    spans = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
    return sorted(spans, key=lambda span: -float(scores_R[span[0] : span[1]].max()))
