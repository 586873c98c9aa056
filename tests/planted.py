"""Benchmarks with a planted signal, and the tasks that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from protclip.evaluation.task import Benchmark, Kind, Metric, Split, Task

METRICS: dict[Kind, Metric] = {
    "regression": "spearman",
    "classes": "accuracy",
    "labels": "f1_max",
    "similarity": "spearman",
    "zero-shot": "accuracy",
    "graph": "mrr",
    "retrieval": "recall@1",
}


def make_task(kind: Kind, metric: Metric | None = None, *, select_by: Literal["mae", ""] = "") -> Task:
    """A task that reads nothing."""

    def read(_: str) -> Benchmark:
        raise AssertionError("protocols are given their rows")

    return Task(
        name="planted",
        title="Planted",
        kind=kind,
        metric=metric or METRICS[kind],
        read=read,
        published="",
        source="",
        licence="",
        select_by=select_by,
    )


def make_benchmark(
    proteins_NK: NDArray[np.int64],
    labels: NDArray[Any],
    *,
    sequences: Sequence[str] | None = None,
    num_classes: int = 0,
    texts: Sequence[str] = (),
    seed: int = 0,
) -> Benchmark:
    """Rows cut into train, valid and test, 60:20:20, in a random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = np.split(order, [int(0.6 * len(order)), int(0.8 * len(order))])
    num_proteins = int(proteins_NK.max()) + 1
    return Benchmark(
        ids=tuple(f"P{i}" for i in range(num_proteins)),
        sequences=tuple(sequences) if sequences else tuple(f"M{'A' * i}" for i in range(num_proteins)),
        splits={
            name: Split(proteins_NK=proteins_NK[rows], labels=labels[rows])
            for name, rows in zip(("train", "valid", "test"), cuts, strict=True)
        },
        classes=tuple(f"class {i}" for i in range(num_classes)),
        texts=tuple(texts),
    )


def planted(kind: Kind, *, seed: int = 0, pairs: bool = False) -> tuple[Benchmark, NDArray[np.float32]]:
    """600 rows whose labels follow from linear functions of the features, with some noise."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((600, 12)).astype(np.float32)
    proteins = np.arange(600)[:, None]
    values = features
    if pairs:
        proteins = np.stack([generator.permutation(600), generator.permutation(600)], axis=1)
        values = features[proteins[:, 0]] * features[proteins[:, 1]]
    noisy = values @ generator.standard_normal((12, 4)) + 0.3 * generator.standard_normal((600, 4))
    if kind == "regression":
        return make_benchmark(proteins, 5 + 2 * noisy[:, 0]), features
    if kind == "labels":
        return make_benchmark(proteins, noisy > 1, num_classes=4), features
    return make_benchmark(proteins, noisy.argmax(1), num_classes=4), features


def shuffled(benchmark: Benchmark, seed: int = 0) -> Benchmark:
    """The same with the labels of train and valid in another order."""
    generator = np.random.default_rng(seed)
    mixed = {
        name: replace(one, labels=one.labels if name == "test" else generator.permutation(one.labels))
        for name, one in benchmark.splits.items()
    }
    return replace(benchmark, splits=mixed)
