"""Trackers hold each number once, under its name, also where a run went on after a failure."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from run_folders import fake_entry, fake_step

from protclip import files
from protclip.errors import ConfigError
from protclip.reporting.trackers import (
    MLflowTracker,
    TensorBoardTracker,
    WandbTracker,
    epoch_scalars,
    open_trackers,
    require_trackers,
    step_scalars,
)

pytestmark = pytest.mark.unit

CONFIG = {"seed": 0, "optimizer": {"learning_rate": 1e-5}}


def events(run_dir: str) -> Iterator[Any]:
    """The events of each file, in the order of their names, as TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    folder = files.join(run_dir, "tensorboard")
    for name in files.list_folder(folder):
        with files.open_read(files.join(folder, name)) as stream:
            while header := stream.read(12):  # length and its checksum
                (length,) = struct.unpack("<Q", header[:8])
                data = stream.read(length)
                if len(data) < length or len(stream.read(4)) < 4:
                    break  # still being written
                yield Event.FromString(data)


def scalars(run_dir: str) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(run_dir)
        for value in event.summary.value
        if not value.HasField("tensor")
    ]


def test_numbers_are_grouped_by_what_they_say() -> None:
    names = set(step_scalars(fake_step(5))) | set(epoch_scalars(fake_entry(1)))
    assert {name for name in names if name.startswith("loss/")} == {
        f"loss/{n}" for n in ("loss", "gc", "bsr", "pda", "mlm")
    }
    assert {name for name in names if name.startswith("speed/")} == {
        f"speed/{n}" for n in ("tokens_per_s", "padding_share", "wait_share", "memory_gb")
    }
    assert {name for name in names if name.startswith("optimizer/")} == {
        f"optimizer/{n}" for n in ("learning_rate", "grad_norm", "skipped")
    }
    assert {"valid/loss", "valid/text_to_protein/recall_at_10", "valid/protein_to_text/mrr", "train/gc"} < names
    assert not [
        name for name in names if name.partition("/")[0] not in ("loss", "speed", "optimizer", "valid", "train")
    ]
    assert "train/loss" not in epoch_scalars(fake_entry(0))


@pytest.mark.parametrize("url", [False, True])
def test_tensorboard_has_what_was_logged(tmp_path: Path, url: bool) -> None:
    run_dir = "memory://trackers/whole" if url else str(tmp_path)
    (tracker,) = open_trackers(["tensorboard"], run_dir, CONFIG)
    tracker.log({"loss/gc": 2.5}, 10)
    tracker.log({"loss/gc": 1.5, "valid/text_to_protein/recall_at_10": 0.5}, 20)
    tracker.close()
    recall = (20, "valid/text_to_protein/recall_at_10", 0.5)
    assert scalars(run_dir) == [(10, "loss/gc", 2.5), (20, "loss/gc", 1.5), recall]
    texts = [
        value.tensor.string_val[0] for event in events(run_dir) for value in event.summary.value if value.tensor.dtype
    ]
    assert any(b"learning_rate: 1.0e-05" in text for text in texts)


def test_a_url_has_the_numbers_while_the_run_lasts() -> None:
    run_dir = "memory://trackers/lasting"
    tracker = TensorBoardTracker(run_dir, CONFIG, publish_every_s=0.0)
    deadline, step = time.monotonic() + 20, 0
    while (0, "loss/gc", 2.5) not in scalars(run_dir):  # numbers reach the file by a thread
        assert time.monotonic() < deadline
        tracker.log({"loss/gc": 2.5}, step)
        step += 1
        time.sleep(0.01)
    tracker.close()
    assert [at for at, _, _ in scalars(run_dir)] == list(range(step))
    assert len(files.list_folder(files.join(run_dir, "tensorboard"))) == 1


def test_where_a_run_goes_on_tensorboard_drops_the_steps_that_it_repeats(tmp_path: Path) -> None:
    for steps in ((10, 20, 30), (20, 30, 40)):
        tracker = TensorBoardTracker(str(tmp_path), CONFIG)
        for step in steps:
            tracker.log({"loss/gc": 1 / step}, step)
        tracker.close()
    starts = [event.step for event in events(str(tmp_path)) if event.HasField("session_log")]
    assert starts == [10, 20]
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard's own reader is not installed"
    )
    accumulator = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("loss/gc")] == [10, 20, 30, 40]


def test_a_run_that_logged_nothing_closes(tmp_path: Path) -> None:
    (tracker,) = open_trackers(["tensorboard"], str(tmp_path), CONFIG)
    tracker.close()
    assert open_trackers([], str(tmp_path), CONFIG) == []


def test_an_unknown_tracker_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="comet: unknown; allowed are tensorboard, mlflow, wandb"):
        open_trackers(["tensorboard", "comet"], str(tmp_path), CONFIG)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    message = rf"{name} is not installed; .* pip install -e '\.\[{name}\]'"
    with pytest.raises(ConfigError, match=message):
        open_trackers([name], str(tmp_path), CONFIG)
    with pytest.raises(ConfigError, match=message):  # what the driver asks before there are workers
        require_trackers(["tensorboard", name])


def test_mlflow_goes_on_with_the_same_run_and_keeps_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "proteins")
    run_dir = str(tmp_path / "first")
    for steps in ((10, 20, 30), (20, 30, 40)):
        tracker = MLflowTracker(run_dir, CONFIG)
        for step in steps:
            tracker.log({"valid/text_to_protein/recall_at_10": 1 / step}, step)
        tracker.close()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("proteins").experiment_id])
    history = client.get_metric_history(run.info.run_id, "valid/text_to_protein/recall_at_10")
    assert sorted((metric.step, metric.value) for metric in history) == [(step, 1 / step) for step in (10, 20, 30, 40)]
    assert run.data.params == {"seed": "0", "optimizer.learning_rate": "1e-05"}
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"


def test_wandb_goes_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    for steps in ((10, 20), (20, 30)):
        tracker = WandbTracker(str(tmp_path), CONFIG)
        for step in steps:
            tracker.log({"loss/gc": 1 / step}, step)
        tracker.log({"valid/loss": 1.0}, steps[-1])
        ids.append(tracker._run.id)
        tracker.close()
    assert ids[0] == ids[1]
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{ids[0]}"))) == 2


def test_wandb_is_not_sent_what_its_server_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        """A resumed run: its server has the steps before 21."""

        step = 21
        sent: ClassVar[list[tuple[int, dict[str, float]]]] = []

        def log(self, values: dict[str, float], step: int) -> None:
            self.step = step
            self.sent.append((step, values))

    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=lambda **_: Run(), errors=SimpleNamespace(Error=OSError))
    )
    tracker = WandbTracker(str(tmp_path), CONFIG)
    for step in (10, 20, 30):
        tracker.log({"loss/gc": 1 / step}, step)
    tracker.log({"valid/loss": 1.0}, 30)
    assert Run.sent == [(30, {"loss/gc": 1 / 30}), (30, {"valid/loss": 1.0})]
