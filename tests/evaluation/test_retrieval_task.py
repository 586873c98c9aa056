"""Retrieval as tasks of a folder of pairs: by the whole text, by each property alone, and by organism."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pairs_folders import row, write_pairs

from protclip.errors import DataError, MissingDataError
from protclip.evaluation.retrieval_task import MIN_GROUP_ROWS, retrieval_tasks
from protclip.evaluation.task import Benchmark
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit


def entry(number: int, organism: str = "Mus musculus", **properties: str | None) -> Entry:
    sequence = "M" + "KLVAE"[number % 5] * (number + 1)
    return Entry(accession=f"P{number:05}", sequence=sequence, organism=organism, **properties)  # type: ignore[arg-type]


def read(folder: Path, entries: Sequence[Entry], *, split: str = "test") -> dict[str, Benchmark | DataError]:
    write_pairs(folder, {f"{split}-00000-of-00001": [row(one) for one in entries]})
    found: dict[str, Benchmark | DataError] = {}
    for task in retrieval_tasks(str(folder)):
        try:
            found[task.name] = task.read("")
        except DataError as error:
            found[task.name] = error
    return found


def test_each_property_is_a_task_of_the_rows_that_have_it(tmp_path: Path) -> None:
    entries = [
        entry(0, name="Lysozyme", function="FUNCTION: Cuts walls."),
        entry(1, name="Haemoglobin", function="FUNCTION: Carries oxygen."),
        entry(2, name="Lysozyme"),
        entry(3, function="FUNCTION: Cuts walls."),
    ]
    found = read(tmp_path / "pairs", entries)
    whole, names, functions = (found[name] for name in ("retrieval", "retrieval_name", "retrieval_function"))
    assert isinstance(whole, Benchmark)
    assert isinstance(names, Benchmark)
    assert isinstance(functions, Benchmark)
    assert whole.ids == ("P00000", "P00001", "P00002", "P00003")
    assert whole.texts[0] == "PROTEIN NAME: Lysozyme. FUNCTION: Cuts walls."
    assert names.ids == ("P00000", "P00001", "P00002")
    assert names.texts == ("PROTEIN NAME: Lysozyme.", "PROTEIN NAME: Haemoglobin.")
    assert names.splits["test"].labels.tolist() == [0, 1, 0]
    assert functions.texts == ("FUNCTION: Cuts walls.", "FUNCTION: Carries oxygen.")
    assert functions.splits["test"].labels.tolist() == [0, 1, 0]
    for name in ("retrieval_subcellular_location", "retrieval_similarity"):
        error = found[name]
        assert isinstance(error, MissingDataError)
        assert f"no pair of its test split has {name.removeprefix('retrieval_')}" in str(error)


def test_organisms_with_enough_rows_are_groups(tmp_path: Path) -> None:
    organisms = ["yeast"] * MIN_GROUP_ROWS + ["mouse"] * (MIN_GROUP_ROWS - 1) + [""]
    found = read(tmp_path / "pairs", [entry(i, organism=one, name=f"Protein {i}") for i, one in enumerate(organisms)])
    whole = found["retrieval"]
    assert isinstance(whole, Benchmark)
    assert list(whole.groups["organism"]) == ["yeast"] * MIN_GROUP_ROWS + [""] * MIN_GROUP_ROWS


def test_pairs_without_a_test_split_are_refused(tmp_path: Path) -> None:
    error = read(tmp_path / "pairs", [entry(0, name="Lysozyme")], split="train")["retrieval"]
    assert isinstance(error, DataError)
    assert "has no test split" in str(error)
