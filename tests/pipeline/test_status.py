"""How far a pipeline is, told by its folder alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pairs_folders import row, write_pairs
from run_folders import write_fake_run
from tiny_model import random_sequences, tiny_model

from protclip import files
from protclip.__main__ import cli
from protclip.embeddings.embed import embed
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import DataError
from protclip.manifest import work_folder
from protclip.occupied import occupied
from protclip.pipeline.records import Failure, StageRecord, write_record
from protclip.pipeline.status import StageStatus, read_status
from protclip.uniprot.entry import Entry
from protclip.units import InProcess, Item, Report, Work

pytestmark = pytest.mark.unit

START = datetime(2026, 11, 28, 4, 0, tzinfo=UTC)
RECORD = StageRecord(state="begun", claim={}, fingerprint="", started=START.isoformat(), resumed=START.isoformat())


class KilledError(Exception):
    """Stands for a kill."""


class Killed(InProcess):
    """Does some units, and no more."""

    def __call__(self, work: Work, items: Sequence[Item]) -> Iterator[Report]:
        units = items if work.cut is None else [item for whole in items for item in work.cut(whole)]
        yield from map(work.unit, units[:3])
        raise KilledError


def status(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments], catch_exceptions=False)


def put_pipeline(folder: Path, *stages: str) -> str:
    files.write_json(str(folder / "pipeline.json"), {"kind": "pipeline", "stages": {name: {} for name in stages}})
    return str(folder)


def put_checkpoint(run: Path, step: int, when: datetime) -> None:
    folder = run / "checkpoints" / f"step-{step:09d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    os.utime(folder / "manifest.json", (when.timestamp(), when.timestamp()))


def test_stages_wait_run_stop_fail_and_are_done(tmp_path: Path) -> None:
    folder = put_pipeline(tmp_path, "curate", "embed", "index")
    assert [stage.state for stage in read_status(folder).stages] == ["waiting"] * 3
    assert read_status(folder).state == "waiting"

    write_record(folder, "curate", RECORD)
    with occupied(folder):
        told = read_status(folder, START + timedelta(seconds=90))
    assert (told.state, told.stages[0].state, told.stages[0].seconds) == ("running", "running", 90.0)
    assert told.at_work is not None and told.at_work.pid == os.getpid()
    assert (read_status(folder).state, read_status(folder).stages[0].state) == ("stopped", "stopped")

    failure = Failure(when=START.isoformat(), error="DataError: a.dat does not exist")
    write_record(folder, "curate", replace(RECORD, state="failed", failure=failure, num_failures=2, num_starts=3))
    assert read_status(folder).state == "failed"
    text = status(folder).stdout
    assert "curate: failed 2 times, last at 2026-11-28T04:00:00+00:00: DataError: a.dat does not exist" in text
    assert "curate: begun 3 times" in text

    done = replace(RECORD, state="done", ended=(START + timedelta(seconds=75)).isoformat(), counted={"pairs": 1234})
    write_record(folder, "curate", done)
    assert read_status(folder).stages[0].state == "missing"
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "manifest.json").write_text("{}")
    told = read_status(folder)
    assert (told.state, told.stages[0].state, told.stages[0].seconds) == ("stopped", "done", 75.0)
    line = next(line for line in status(folder).stdout.splitlines() if line.startswith("curate"))
    assert line.split() == ["curate", "done", "pairs", "1,234", "01:15"]
    assert json.loads(status(folder, "--json").stdout)["stages"][0]["counted"] == {"pairs": 1234}


def test_time_left_is_by_the_pace_of_the_parts_committed_since_the_start(tmp_path: Path) -> None:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    entries = [
        Entry(accession=f"P{i}", sequence=s, name="a", reviewed=True) for i, s in enumerate(random_sequences(20))
    ]
    write_pairs(tmp_path / "pairs", {"train-00000-of-00001": [row(entry) for entry in entries]})
    folder = put_pipeline(tmp_path, "embed")
    config: dict[str, Any] = {"inputs": (str(tmp_path / "pairs"),), "checkpoint": str(tmp_path / "model")}
    with pytest.raises(KilledError):
        embed(EmbedConfig(**config, output=f"{folder}/embeddings", part_rows=2), Killed(threads=1))
    write_record(folder, "embed", RECORD)
    reports = sorted((tmp_path / "embeddings" / ".work").rglob("parts/*.json"))
    # One of an earlier life, and two in this one.
    for path, seconds in zip(reports, (-500, 10, 30), strict=True):
        when = START.timestamp() + seconds
        os.utime(path, (when, when))
    (stage,) = read_status(folder, START + timedelta(seconds=35)).stages
    assert stage.progress is not None
    assert (stage.progress.unit, stage.progress.done, stage.progress.total) == ("parts", 3, 10)
    assert stage.progress.left_s == 7 * 20
    with occupied(folder):
        (stage,) = read_status(folder, START + timedelta(seconds=35)).stages
    assert stage.progress is not None and stage.progress.left_s == 7 * 20 - 5
    single = read_status(f"{folder}/embeddings").stages[0]
    assert (single.stage, single.state, single.progress and single.progress.done) == ("embed", "stopped", 3)


def test_units_are_counted_where_the_storage_tells_no_times() -> None:
    folder = "memory://status/index"
    claim = {"embeddings": "0"}
    files.write_json(f"{folder}/.work/claim.json", claim)
    work = work_folder(folder, claim)
    files.write_json(f"{work}/building.total.json", {"units": 3})
    for number in range(2):
        files.write_json(f"{work}/building/segment-0000{number}.json", {})
    assert set(files.times(f"{work}/building").values()) == {None}
    progress = read_status(folder).stages[0].progress
    assert progress is not None
    assert (progress.done, progress.total, progress.left_s) == (2, 3, None)


def test_a_training_tells_its_last_checkpoint_and_its_pace(tmp_path: Path) -> None:
    folder = put_pipeline(tmp_path, "pretrain")
    write_record(folder, "pretrain", RECORD)
    write_fake_run(f"{folder}/run", epochs=1, finished=False)
    metrics = files.read_json(f"{folder}/run/metrics.json")
    files.write_json(f"{folder}/run/metrics.json", {**metrics, "total_steps": 3200})
    (tmp_path / "run" / "pairs.json").write_text("{}")

    def told(seconds: float) -> StageStatus:
        return read_status(folder, START + timedelta(seconds=seconds)).stages[0]

    assert told(5).progress is not None and told(5).checkpoint is None
    put_checkpoint(tmp_path / "run", 100, START - timedelta(seconds=900))  # of an earlier life
    put_checkpoint(tmp_path / "run", 200, START + timedelta(seconds=50))
    stage = told(60)
    assert stage.checkpoint is not None and stage.progress is not None
    assert (stage.checkpoint.step, stage.checkpoint.age_s) == (200, 10.0)
    assert stage.checkpoint.path == f"{folder}/run/checkpoints/step-000000200"
    assert (stage.progress.done, stage.progress.total, stage.progress.left_s) == (200, 3200, 3000 / 2)
    put_checkpoint(tmp_path / "run", 600, START + timedelta(seconds=150))
    (tmp_path / "run" / "checkpoints" / "step-000000700").mkdir()  # is being written
    stage = told(160)
    assert stage.checkpoint is not None and stage.checkpoint.step == 600
    assert stage.progress is not None and stage.progress.left_s == 2600 / 4
    assert "pretrain: last checkpoint" in status(folder).stdout
    assert read_status(f"{folder}/run").stages[0].stage == "pretrain"


def test_the_page_stands_alone_and_shows_names_as_text(tmp_path: Path) -> None:
    folder = put_pipeline(tmp_path, "curate", "index")
    failure = Failure(when=START.isoformat(), error="DataError: <b>bold</b>\nindex  done \ud800")
    write_record(folder, "curate", replace(RECORD, state="failed", failure=failure, num_failures=1))
    lines = status(folder, "--html", str(tmp_path / "page.html")).stdout.splitlines()
    assert lines[-1] == "  index  done \\ud800"  # not at the start of a line, as a stage of its own
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<li>") == 1
    assert "\\ud800" in page
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page
    assert not any(word in page for word in ("<script", "http://", "https://"))


@pytest.mark.parametrize("what", ["missing", "empty", "file", "damaged", "foreign"])
def test_a_folder_that_is_no_pipelines_is_one_clear_error(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "folder"
    words = {"missing": "is missing", "file": "is a file", "damaged": "is not JSON", "empty": "has no manifest.json"}
    if what == "file":
        folder.write_text("a")
    elif what != "missing":
        folder.mkdir()
    if what == "damaged":
        (folder / "pipeline.json").write_text("{")
    if what == "foreign":
        files.write_json(f"{folder}/pipeline.json", {"stages": {"cook": {}}})
    with pytest.raises(DataError, match=words.get(what, "does not say the stages")):
        status(str(folder))


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("stages/pretrain.json", "{", "is not JSON .* Restore the file, or remove it"),
        ("run/metrics.json", "[]", "an object is needed"),
        ("run/metrics.json", '{"total_steps": 1e400}', "total_steps is inf"),
        ("pairs/.work/claim.json", "[]", "does not say its inputs"),
        ("pairs/.work/claim.json", '{"inputs": 3}', "does not say its inputs"),
        ("pairs/.work/{}/merge.total.json", '{"units": "a"}', "units is 'a'; a whole number"),
        ("pairs/.work/{}/merge.total.json", "[]", "an object is needed"),
        ("pairs/.work/{}/read/0.json", '{"blocks": -1}', "blocks is -1"),
    ],
)
def test_what_is_damaged_in_an_unfinished_stage_is_one_clear_error(
    tmp_path: Path, path: str, content: str, words: str
) -> None:
    folder = put_pipeline(tmp_path, "curate", "pretrain")
    for stage in ("curate", "pretrain"):
        write_record(folder, stage, RECORD)
    claim = {"inputs": {"a.dat": "1"}}
    files.write_json(f"{folder}/pairs/.work/claim.json", claim)
    put_checkpoint(tmp_path / "run", 100, START)
    work = work_folder(f"{folder}/pairs", claim).rsplit("/", 1)[-1]
    damaged = tmp_path / path.format(work)
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text(content)
    with pytest.raises(DataError, match=words):
        status(folder)


@pytest.mark.parametrize("manifest", [{"kind": ["pairs"]}, {"kind": "pairs"}, {"kind": "index", "count": 3}])
def test_a_finished_stage_whose_manifest_was_altered_is_one_clear_error(tmp_path: Path, manifest: Any) -> None:
    files.write_json(str(tmp_path / "manifest.json"), manifest)
    with pytest.raises(DataError, match=r"does not say what it holds|is a folder of another kind"):
        status(str(tmp_path))


def test_a_copy_beside_the_checkpoints_is_not_taken_for_one(tmp_path: Path) -> None:
    folder = put_pipeline(tmp_path, "pretrain")
    write_record(folder, "pretrain", RECORD)
    put_checkpoint(tmp_path / "run", 100, START)
    (tmp_path / "run" / "checkpoints" / "step-000000100").rename(tmp_path / "run" / "checkpoints" / "step-good")
    put_checkpoint(tmp_path / "run", 50, START)
    (stage,) = read_status(folder).stages
    assert stage.checkpoint is not None and stage.checkpoint.step == 50


def test_records_that_may_not_be_read_are_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put_pipeline(tmp_path, "pretrain")
    write_record(folder, "pretrain", RECORD)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"stages: cannot be read .*Permission denied"):
        status(folder)
