"""What a benchmark is: proteins with labels in splits, and the number by which predictions of them are judged.

Shapes: P distinct proteins, N rows of a split, K proteins of a row (1, or 2 where rows are pairs), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Kind = Literal["regression", "classes", "labels", "similarity", "retrieval", "zero-shot", "graph"]
"""regression: a number for each row. classes: one of C classes. labels: any of C labels. similarity: a number for each
pair of proteins, which their embeddings are to order. retrieval: the pair of each protein among texts, and of each text
among proteins. zero-shot: one of C classes, of which the model knows the description alone. graph: the other end of an
edge, among all entities of its kind."""
Metric = Literal["spearman", "accuracy", "f1_max", "micro_f1", "recall@1", "mrr"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The rows of one split."""

    proteins_NK: np.ndarray
    """int64, places among the proteins of the benchmark."""
    labels: np.ndarray
    """float64 (N,) of a regression or similarity; int64 (N,) of classes, and of texts where these are the labels;
    bool (N, C) of labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """The rows of a task, as they were read from files."""

    ids: tuple[str, ...]
    """Of the P proteins, as the files name them, or by their row where they do not."""
    sequences: tuple[str, ...]
    """Of the P proteins, which are distinct."""
    splits: Mapping[str, Split]
    """``train``, ``valid`` and ``test``; the last is always there."""
    classes: tuple[str, ...] = ()
    """Names of the C classes or labels."""
    texts: tuple[str, ...] = ()
    """What proteins are retrieved by, and what is retrieved for them; or the C descriptions of a zero-shot task."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file that was read, by its path below the data folder."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By a name such as ``organism``, what each row of the test split belongs to, for which it is scored beside; empty
    for none."""
    note: str = ""
    """How these rows differ from the published ones, such as ``train: 2,286 of 15,551 proteins``; empty if they do
    not. Every table shows it."""


def only_test(benchmark: Benchmark) -> Benchmark:
    """The test split and its proteins, without the others."""
    test = benchmark.splits["test"]
    used, proteins = np.unique(test.proteins_NK, return_inverse=True)
    return replace(
        benchmark,
        ids=tuple(benchmark.ids[place] for place in used),
        sequences=tuple(benchmark.sequences[place] for place in used),
        splits={"test": replace(test, proteins_NK=proteins.reshape(test.proteins_NK.shape))},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A benchmark that can be run."""

    name: str
    """As ``--tasks`` takes it, such as ``beta_lactamase``."""
    title: str
    """For people."""
    kind: Kind
    metric: Metric
    """The number that the report shows first; more is better."""
    read: Callable[[str], Benchmark]
    """Reads it from the data folder. Raises DataError, naming the file and what is wrong with it, and
    MissingDataError where a file is not there."""
    published: str
    """What the published data is: splits and their sizes."""
    source: str
    """Where its files are published, and their format."""
    licence: str
    """Of the data."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """Figures that the ProtCLIP paper is known to give, by metric."""
    num_classes: int = 0
    """Of the published data; 0 where labels are no classes."""
    query: Literal["protein", "text"] = "protein"
    """Of a graph: which end of an edge is given."""
    select_by: Literal["mae", ""] = ""
    """Of a regression: what the authors choose the best epoch by, where it is not the metric itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one model did on one task with one seed."""

    metrics: Mapping[str, float]
    """The task's metric, and others."""
    predictions: np.ndarray
    """Of the rows of the test split, in their order: float64 (N,) of a number; float32 (N, C) of the probability of
    classes and labels; of retrieval and graphs int64 (N, 3), the places of the right answers as
    ``protclip.metrics.ranking`` has them, of which ranks, recall and reciprocal ranks follow. Intervals and
    comparisons are made of them (``protclip.evaluation.scores``)."""
    settings: Mapping[str, float | str]
    """What was chosen on the validation split, such as a penalty."""
