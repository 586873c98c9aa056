"""The checkpoints of a run: committed or not there, the damaged ones passed over, the rest pruned."""

from __future__ import annotations

import errno
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from protclip.config import SelectionConfig
from protclip.errors import CheckpointError
from protclip.manifest import write_manifest
from protclip.train.checkpoints import Writer, best, committed, newest

pytestmark = pytest.mark.unit


def writing(loss: float | None = None, *, valid: Mapping[str, Any] | None = None) -> Callable[[str], None]:
    """Writes a checkpoint of an epoch of that validation loss or of these measures, or of a moment within one."""
    if loss is not None:
        valid = {"loss": loss}

    def write(folder: str) -> None:
        Path(folder).mkdir(parents=True)
        Path(folder, "model.safetensors").write_text(folder[-9:])
        write_manifest(folder, "checkpoint", ["model.safetensors"], metrics={} if valid is None else {"valid": valid})

    return write


def names(folder: Path) -> list[str]:
    return [path.rsplit("-", 1)[-1].lstrip("0") for path in committed(str(folder))]


def test_the_last_two_and_the_best_epochs_stay(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), keep=2, selection=SelectionConfig())
    for step, loss in enumerate([0.5, None, 0.3, 0.9, 0.4, None, 0.8, None], start=1):
        writer.start(step, writing(loss))
    writer.wait()
    assert names(tmp_path) == ["3", "5", "7", "8"]
    assert best(str(tmp_path), SelectionConfig()).endswith("step-000000003")


def test_the_best_epochs_are_those_of_the_chosen_measure(tmp_path: Path) -> None:
    selection = SelectionConfig(metric="text_to_protein_recall_at_10", mode="max")
    writer = Writer(str(tmp_path), keep=2, selection=selection)
    for step, recall in enumerate([0.2, 0.4, 0.3, math.nan, 0.4, 0.1, 0.2], start=1):
        valid = {"loss": 5.0 - step, "text_to_protein": {"recall@10": recall}}  # the loss is best at the end
        writer.start(step, writing(valid=valid))
    writer.wait()
    assert names(tmp_path) == ["2", "5", "6", "7"]
    assert best(str(tmp_path), selection).endswith("step-000000002")  # of equal ones the first
    with pytest.raises(CheckpointError, match="none has the highest validation protein to text mrr"):
        best(str(tmp_path), SelectionConfig(metric="protein_to_text_mrr", mode="max"))


@pytest.mark.parametrize("losses", [[math.nan, 0.5, 0.7, math.nan], [math.inf, 0.7, 0.5, math.nan]])
def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path: Path, losses: list[float]) -> None:
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    for step, loss in enumerate(losses, start=1):
        writer.start(step, writing(loss))
    writer.wait()
    place = losses.index(0.5) + 1
    assert best(str(tmp_path), SelectionConfig()).endswith(f"step-00000000{place}")
    assert str(place) in names(tmp_path)


def test_a_run_without_a_finite_loss_has_no_best(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    writer.start(1, writing(math.nan))
    writer.wait()
    with pytest.raises(CheckpointError, match="no epoch has a finite validation measure"):
        best(str(tmp_path), SelectionConfig())


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    writer.start(1, writing())
    writer.wait()
    half = tmp_path / "checkpoints/step-000000002"
    half.mkdir()
    (half / "model.safetensors").write_text("half")
    assert str(newest(str(tmp_path), tell=pytest.fail)).endswith("step-000000001")
    Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    assert not half.exists()


def test_one_that_is_written_again_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    """An epoch's end writes the step that a moment before it has written; a kill amid that must not leave damage."""
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    for step in (1, 2):
        writer.start(step, writing())
    amid: list[list[str]] = []

    def write_again(folder: str) -> None:
        Path(folder, "model.safetensors").unlink()
        amid.append(names(tmp_path))
        shutil.rmtree(folder)
        writing(0.5)(folder)

    writer.start(2, write_again)
    writer.wait()
    assert amid == [["1"]]
    assert names(tmp_path) == ["1", "2"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_one_is_named_and_the_one_before_it_taken(tmp_path: Path, damage: str) -> None:
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    for step in (1, 2):
        writer.start(step, writing())
    writer.wait()
    file = tmp_path / "checkpoints/step-000000002/model.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_text({"cut": "00", "flipped": "000000003"}[damage])
    told: list[str] = []
    assert str(newest(str(tmp_path), tell=told.append)).endswith("step-000000001")
    assert len(told) == 1
    assert str(file) in told[0]
    assert newest(str(tmp_path / "nothing"), tell=pytest.fail) is None


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_damaged_ones_that_were_passed_over_do_not_push_out_what_is_written_after_them(
    tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 3, 4):
        writing()(str(folder / f"step-{step:09d}"))
    for step in (3, 4):
        (folder / f"step-{step:09d}" / file).write_text("{")
    assert str(newest(str(tmp_path), tell=lambda _: None)).endswith("step-000000001")
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    writer.start(2, writing())
    writer.wait()
    assert names(tmp_path) == ["1", "2", "3", "4"]
    assert str(newest(str(tmp_path), tell=lambda _: None)).endswith("step-000000002")
    writer.start(5, writing())
    writer.wait()
    assert names(tmp_path) == ["4", "5"]


def test_a_write_that_fails_is_told_and_leaves_the_one_before(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    writer.start(1, writing())

    def fail(folder: str) -> None:
        Path(folder).mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    writer.start(2, fail)
    with pytest.raises(CheckpointError, match=r"No space left on device.*Those before it are whole"):
        writer.wait()
    assert writer.error is not None
    assert names(tmp_path) == ["1"]
    with pytest.raises(CheckpointError, match="holds no checkpoint of a finished epoch"):
        best(str(tmp_path), SelectionConfig())


def test_training_does_not_wait_for_a_write(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), keep=1, selection=SelectionConfig())
    go_on = threading.Event()
    writer.start(1, lambda folder: (go_on.wait(10), writing()(folder)))
    assert writer.busy
    assert names(tmp_path) == []
    go_on.set()
    writer.wait()
    assert not writer.busy
    assert names(tmp_path) == ["1"]
