"""Whether proteins whose embeddings are alike have like functions (PROBE: Unsal et al. 2022,
doi:10.1038/s42256-022-00457-9).

Shapes: P proteins, D their width, N pairs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protclip.evaluation.features import checked, unit
from protclip.evaluation.scores import all_metrics
from protclip.evaluation.task import Benchmark, Outcome, Task

Measure = Literal["manhattan", "euclidean", "cosine"]


def similarity(
    task: Task, benchmark: Benchmark, features_PD: NDArray[np.float32], *, measure: Measure = "manhattan"
) -> Outcome:
    """Spearman's ρ between the likeness of embeddings and that of functions, over pairs of proteins.

    Args:
        task: of kind similarity.
        benchmark: its pairs; no split but test is looked at.
        features_PD: of the benchmark's proteins.
        measure: of the score and the predictions; the other ones stand among the metrics. manhattan and euclidean are
            1 - |a - b| / (|a| + |b|) in that norm, as of BioBridge (Wang et al. 2024, arXiv:2310.03320), whose
            figures are compared with.

    Raises:
        DataError: if the features do not fit the benchmark.
    """
    test = benchmark.splits["test"]
    features_PD = checked(features_PD, benchmark)
    unit_PD = unit(features_PD)
    alike: dict[Measure, NDArray[np.float64]] = {
        "manhattan": _by_norm(features_PD, test.proteins_NK, 1),
        "euclidean": _by_norm(features_PD, test.proteins_NK, 2),
        "cosine": np.array([unit_PD[a] @ unit_PD[b] for a, b in test.proteins_NK], np.float64),
    }
    others = {
        f"spearman_{name}": all_metrics(task.kind, test.labels, values)["spearman"] for name, values in alike.items()
    }
    metrics = {**all_metrics(task.kind, test.labels, alike[measure]), **others}
    return Outcome(metrics=metrics, predictions=alike[measure], settings={"measure": measure})


def _by_norm(features_PD: NDArray[np.float32], pairs_N2: NDArray[np.int64], order: int) -> NDArray[np.float64]:
    length_P = np.linalg.norm(features_PD, order, axis=1).astype(np.float64)
    # A pair at a time: all differences at once would be as large as N embeddings.
    apart_N = np.array([np.linalg.norm(features_PD[a] - features_PD[b], order) for a, b in pairs_N2], np.float64)
    alike_N: NDArray[np.float64] = 1 - apart_N / np.maximum(length_P[pairs_N2].sum(1), 1e-12)
    return alike_N
