"""What would give wrong numbers is refused, and said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmark_files import NUM_CLASSES, planted

from protclip.errors import DataError
from protclip.evaluation.checks import check
from protclip.evaluation.task import Benchmark, Kind, Split, Task

pytestmark = pytest.mark.unit

KINDS: tuple[Kind, ...] = ("regression", "classes", "labels", "similarity", "retrieval", "zero-shot", "graph")


def _task(kind: Kind) -> Task:
    return Task(
        name="a_task",
        title="A task",
        kind=kind,
        metric="accuracy",
        read=lambda _: planted(kind, 0),
        num_classes=NUM_CLASSES if kind in ("classes", "labels", "zero-shot") else 0,
        published="some rows",
        source="somewhere",
        licence="some licence",
    )


def _with(benchmark: Benchmark, name: str, split: Split) -> Benchmark:
    return replace(benchmark, splits={**benchmark.splits, name: split})


def _rows(split: Split, rows: np.ndarray) -> Split:
    return Split(proteins_NK=split.proteins_NK[rows], labels=split.labels[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_benchmark_passes_as_it_is(kind: Kind) -> None:
    benchmark = planted(kind, 0)
    assert check(_task(kind), benchmark).note == ""


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_missing_split_is_refused(name: str) -> None:
    benchmark = planted("regression", 0)
    splits = {other: split for other, split in benchmark.splits.items() if other != name}
    with pytest.raises(DataError, match=f"a_task: has no split '{name}'"):
        check(_task("regression"), replace(benchmark, splits=splits))


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_an_empty_split_is_refused(name: str) -> None:
    benchmark = planted("classes", 0)
    empty = _rows(benchmark.splits[name], np.array([], np.int64))
    with pytest.raises(DataError, match=f"a_task, {name}: has no rows"):
        check(_task("classes"), _with(benchmark, name, empty))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["regression", "similarity"])
def test_labels_that_are_no_finite_numbers_are_counted_and_the_first_is_named(kind: Kind, bad: float) -> None:
    benchmark = planted(kind, 0)
    test = benchmark.splits["test"]
    labels = test.labels.copy()
    labels[[3, 5]] = bad
    name = benchmark.ids[test.proteins_NK[3, 0]]
    with pytest.raises(DataError, match=f"test: 2 of 64 labels are no finite numbers; the first is {bad}, of '{name}'"):
        check(_task(kind), _with(benchmark, "test", Split(proteins_NK=test.proteins_NK, labels=labels)))


def test_another_number_of_classes_is_refused() -> None:
    benchmark = planted("labels", 0, num_classes=NUM_CLASSES + 1)
    with pytest.raises(DataError, match="has 5 classes; the published data has 4"):
        check(_task("labels"), benchmark)


@pytest.mark.parametrize("kind", ["classes", "zero-shot", "retrieval", "graph"])
@pytest.mark.parametrize("bad", [-1, NUM_CLASSES])
def test_a_label_of_no_class_is_refused(kind: Kind, bad: int) -> None:
    benchmark = planted(kind, 0)
    test = benchmark.splits["test"]
    labels = test.labels.copy()
    labels[7] = bad
    with pytest.raises(DataError, match=f"a_task, test: the label {bad} of .* is none of the 4"):
        check(_task(kind), _with(benchmark, "test", Split(proteins_NK=test.proteins_NK, labels=labels)))


def test_rows_with_too_few_labels_are_refused() -> None:
    benchmark = planted("labels", 0)
    test = benchmark.splits["test"]
    cut = Split(proteins_NK=test.proteins_NK, labels=test.labels[:, :-1])
    with pytest.raises(DataError, match="a_task, test"):
        check(_task("labels"), _with(benchmark, "test", cut))


@pytest.mark.parametrize("source", ["train", "valid"])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_test_row_in_another_split_is_refused_and_named(source: str, pairs: bool) -> None:
    benchmark = planted("labels", 0, pairs=pairs)
    test, other = benchmark.splits["test"], benchmark.splits[source]
    proteins = other.proteins_NK.copy()
    proteins[4] = test.proteins_NK[2][::-1]  # of a pair, the other way round
    leaking = _with(benchmark, source, Split(proteins_NK=proteins, labels=other.labels))
    name = benchmark.ids[test.proteins_NK[2, 0]]
    with pytest.raises(DataError, match=f"1 of 64 rows of test are in {source} too, first '{name}'"):
        check(_task("labels"), leaking)


def test_pairs_that_share_one_protein_are_no_leak() -> None:
    benchmark = planted("labels", 0, pairs=True)
    train = benchmark.splits["train"]
    proteins = train.proteins_NK.copy()
    proteins[:, 0] = benchmark.splits["test"].proteins_NK[0, 0]
    assert check(_task("labels"), _with(benchmark, "train", replace(train, proteins_NK=proteins))).note == ""


def test_few_shared_rows_are_a_note_since_published_splits_have_them() -> None:
    benchmark = planted("regression", 0, sizes={"train": 20, "valid": 10, "test": 200})
    train = benchmark.splits["train"]
    proteins = train.proteins_NK.copy()
    proteins[:2] = benchmark.splits["test"].proteins_NK[:2]
    shared = replace(_with(benchmark, "train", replace(train, proteins_NK=proteins)), note="before")
    assert check(_task("regression"), shared).note == "before; 2 of 200 rows of test are in train too"
    proteins[:3] = benchmark.splits["test"].proteins_NK[:3]
    with pytest.raises(DataError, match="at most 1% may be"):
        check(_task("regression"), _with(benchmark, "train", replace(train, proteins_NK=proteins)))


def test_rows_that_valid_shares_with_train_are_a_note() -> None:
    benchmark = planted("classes", 0)
    train = benchmark.splits["train"]
    doubled = replace(
        train,
        proteins_NK=np.where(np.arange(96)[:, None] < 32, np.arange(96, 128).repeat(3)[:, None], train.proteins_NK),
    )
    assert "rows of valid are in train too" in check(_task("classes"), _with(benchmark, "train", doubled)).note
