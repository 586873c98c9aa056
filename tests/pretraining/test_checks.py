"""What is refused before a training starts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pairs_folders import row, write_pairs

from protclip.config import GC_ALONE, ObjectivesConfig
from protclip.errors import ConfigError, DataError
from protclip.pretraining.checks import check_pairs
from protclip.protanno.shards import read_pairs
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit


def entries(count: int, *, texts: int, proteins: int) -> list[Entry]:
    return [
        Entry(accession=f"A{i}", sequence="MK" + "A" * (i % proteins), name=f"Protein {i % texts}")
        for i in range(count)
    ]


def check(
    folder: Path,
    train: list[Entry],
    valid: list[Entry],
    valid_pairs: int = 100,
    objectives: ObjectivesConfig = GC_ALONE,
) -> None:
    shards = {"train-00000-of-00001": train, "valid-00000-of-00001": valid}
    write_pairs(folder, {name: [row(entry) for entry in some] for name, some in shards.items()})
    check_pairs(read_pairs(str(folder)), objectives, valid_pairs=valid_pairs)


@pytest.mark.parametrize(("texts", "proteins", "what"), [(1, 9, "text"), (9, 1, "protein"), (1, 1, "protein")])
def test_training_pairs_without_negatives_are_refused(tmp_path: Path, texts: int, proteins: int, what: str) -> None:
    varied = entries(9, texts=9, proteins=9)
    with pytest.raises(DataError, match=f"all training pairs have one {what}"):
        check(tmp_path / "pairs", entries(9, texts=texts, proteins=proteins), varied)


@pytest.mark.parametrize(("texts", "proteins", "words"), [(1, 9, "1 distinct text of"), (9, 2, "2 distinct proteins")])
def test_validation_pairs_too_uniform_are_refused(tmp_path: Path, texts: int, proteins: int, words: str) -> None:
    with pytest.raises(DataError, match=f"pairs, validation pairs: {words}"):
        check(tmp_path / "pairs", entries(9, texts=2, proteins=2), entries(9, texts=texts, proteins=proteins))


@pytest.mark.parametrize(("negatives", "refused"), [("properties", True), ("proteins", False)])
def test_an_objective_with_nothing_to_compare_is_refused(tmp_path: Path, negatives: Any, refused: bool) -> None:
    varied = entries(9, texts=9, proteins=9)
    objectives = ObjectivesConfig(pda_negatives=negatives)
    with pytest.raises(ConfigError, match="none of 9 training pairs has two") if refused else nullcontext():
        check(tmp_path / "names", varied, varied, objectives=objectives)
    check(tmp_path / "off", varied, varied, objectives=replace(objectives, pda=0.0))
    described = replace(varied[0], function="FUNCTION: Binds ATP.")
    check(tmp_path / "described", [*varied[1:], described], varied, objectives=objectives)


def test_the_validation_pairs_that_are_measured_count(tmp_path: Path) -> None:
    valid = [*entries(4, texts=1, proteins=4), *entries(6, texts=6, proteins=6)]
    train = entries(9, texts=9, proteins=9)
    check(tmp_path / "all", train, valid)
    with pytest.raises(DataError, match="1 distinct text of 4 pairs"):
        check(tmp_path / "first", train, valid, valid_pairs=4)
