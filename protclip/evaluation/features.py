"""Features of a benchmark's rows, made of those of its proteins.

Shapes: P proteins, D their width, N rows, K proteins of a row, F features of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protclip.errors import DataError
from protclip.evaluation.task import Benchmark, Split

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


def of_rows(features_NKD: Tensor) -> Tensor:
    """Those of each row's proteins as one vector, (N, F).

    One protein's stay as they are, F = D. Of two it is [a · b, |a - b|], F = 2 D, in which neither comes first: the
    product is what published heads of interactions take (GNN-PPI, Lv et al. 2021, arXiv:2105.06709), and the
    difference tells pairs apart whose products are equal.
    """
    if features_NKD.shape[1] == 1:
        return features_NKD[:, 0]
    first_ND, second_ND = features_NKD.unbind(1)
    return torch.cat([first_ND * second_ND, (first_ND - second_ND).abs()], dim=1)


def standardized(features_PD: NDArray[np.float32], benchmark: Benchmark) -> dict[str, Tensor]:
    """The features of the rows of each split, (N, F) float32, with mean 0 and deviation 1 over those of train.

    Raises:
        DataError: if they are not those of the benchmark's proteins, or not finite.
    """
    features_PD = checked(features_PD, benchmark)
    rows = {
        name: of_rows(torch.from_numpy(features_PD)[torch.from_numpy(one.proteins_NK)])
        for name, one in benchmark.splits.items()
    }
    mean_F, deviation_F = rows["train"].mean(0), rows["train"].std(0, correction=0)
    deviation_F[deviation_F == 0] = 1.0
    return {name: (one - mean_F) / deviation_F for name, one in rows.items()}


def checked(features_PD: NDArray[np.float32], benchmark: Benchmark) -> NDArray[np.float32]:
    """The features of the benchmark's proteins.

    Raises:
        DataError: if they are of other ones, by their number, or not finite.
    """
    return _checked(features_PD, benchmark.ids, "proteins")


def checked_texts(features_TD: NDArray[np.float32], benchmark: Benchmark) -> NDArray[np.float32]:
    """Likewise of its texts."""
    return _checked(features_TD, benchmark.texts, "texts")


def _checked(features_XD: NDArray[np.float32], names: Sequence[str], what: str) -> NDArray[np.float32]:
    if len(features_XD) != len(names):
        raise DataError(
            f"{len(features_XD):,} {what} have features, the benchmark has {len(names):,}; embed the benchmark's own."
        )
    if len(bad := np.flatnonzero(~np.isfinite(features_XD).all(1))):
        raise DataError(
            f"the features of {len(bad):,} of {len(names):,} {what} are not finite, the first of them those of "
            f"{names[bad[0]]!r}; look at the checkpoint that made them."
        )
    return features_XD


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (…, D) of unit length; zeros stay zeros."""
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return (features / np.where(length == 0, 1, length)).astype(np.float32)


def composition(benchmark: Benchmark) -> NDArray[np.float32]:
    """What needs no model: the share of each amino acid in a protein, and the logarithm of its length, (P, 21)."""
    counts_P20 = np.array([[sequence.count(letter) for letter in AMINO_ACIDS] for sequence in benchmark.sequences])
    length_P = np.array([max(1, len(sequence)) for sequence in benchmark.sequences])
    return np.column_stack([counts_P20 / length_P[:, None], np.log(length_P)]).astype(np.float32)


def required_splits(benchmark: Benchmark, *names: str) -> list[Split]:
    """Those of these names.

    Raises:
        DataError: for one that the benchmark lacks, or that is empty.
    """
    for name in names:
        if name not in benchmark.splits or len(benchmark.splits[name].labels) == 0:
            raise DataError(
                f"the benchmark has no rows to {'train on' if name == 'train' else 'choose by'}: its split {name} is "
                "missing; a head cannot be fitted on it."
            )
    return [benchmark.splits[name] for name in names]
