"""A tuned encoder: the same steps on any number of workers, the same bits after kills, and better than a frozen one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import make_benchmark, make_task, shuffled
from safetensors.torch import load_file
from tiny_model import RESIDUES, tiny_model
from torch.distributed import ProcessGroup
from workers import run_workers

from protclip import distributed
from protclip.config import OptimizerConfig
from protclip.errors import DataError
from protclip.evaluation.finetune import fine_tune
from protclip.evaluation.task import Benchmark, Kind, Outcome
from protclip.evaluation.training import TuneConfig, Workplace
from protclip.evaluation.two_layers import two_layer_head
from protclip.train.checkpoints import committed
from protclip.train.step import StepReport

ROOT = Path(__file__).parents[2]
CONFIG = TuneConfig(
    hidden_size=32,
    epochs=5,
    batch_size=32,
    optimizer=OptimizerConfig(learning_rate=1e-2, protein_encoder_ratio=1.0),
    checkpoint_every_s=0.0,
)


class Recorder:
    """Keeps the losses, and kills the process after so many steps of its own, once a checkpoint is there."""

    def __init__(self, steps: int | None = None, folder: str = "") -> None:
        self.losses: list[float] = []
        self.steps, self.folder = steps, folder

    def say(self, line: str) -> None:
        raise AssertionError(line)

    def after_step(self, report: StepReport, *_: float) -> None:
        self.losses.append(report.terms["error"])
        if len(self.losses) == self.steps:
            while not committed(self.folder):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    def before_checkpoint(self) -> None: ...

    def after_epoch(self, train: object, valid: object) -> None: ...

    def close(self) -> None: ...


def charged(kind: Kind, num: int = 320) -> Benchmark:
    """Proteins whose labels follow from their charge; labels of their kind are those of pairs."""
    generator = np.random.default_rng(0)
    sequences = ["".join(generator.choice(list(RESIDUES), size=n)) for n in generator.integers(20, 60, num)]
    charge = np.array([sum(s.count(x) for x in "KR") - sum(s.count(x) for x in "DE") for s in sequences], float)
    charge += 0.1 * generator.standard_normal(num)
    proteins = np.arange(num)[:, None]
    if kind == "regression":
        return make_benchmark(proteins, charge, sequences=sequences)
    if kind == "classes":
        return make_benchmark(proteins, (charge > 0).astype(np.int64), sequences=sequences, num_classes=2)
    pairs = np.stack([generator.permutation(num), generator.permutation(num)], axis=1)
    together = charge[pairs]
    labels = np.stack([together.prod(1) > 0, np.abs(together[:, 0] - together[:, 1]) > 3], axis=1)
    return make_benchmark(pairs, labels, sequences=sequences, num_classes=2)


def tune(
    folder: Path, kind: Kind, *, recorder: Recorder | None = None, group: ProcessGroup | None = None, parts: int = 1
) -> Outcome:
    config = replace(CONFIG, micro_batches=parts)
    place = Workplace(run_dir=str(folder), group=group, observer=recorder)
    return fine_tune(make_task(kind), charged(kind), tiny_model(), config=config, seed=0, place=place)


def run_rank(rank: int, group: ProcessGroup, folder: Path, kind: Kind, parts: int) -> None:
    recorder = Recorder() if rank == 0 else None
    found = tune(folder / "run", kind, recorder=recorder, group=group, parts=parts)
    assert distributed.world_size(group) == 2
    if recorder is not None:
        np.save(folder / "predictions.npy", found.predictions)
        (folder / "found.json").write_text(json.dumps([recorder.losses, dict(found.metrics), dict(found.settings)]))


@pytest.mark.ranks
@pytest.mark.parametrize(("kind", "parts"), [("regression", 2), ("labels", 1)])
def test_one_and_two_workers_make_the_same_twenty_steps(kind: Kind, parts: int, tmp_path: Path) -> None:
    recorder = Recorder()
    wanted = tune(tmp_path / "alone", kind, recorder=recorder)
    run_workers(run_rank, 2, tmp_path, kind, parts)
    losses, metrics, settings = json.loads((tmp_path / "found.json").read_text())
    assert len(losses) == len(recorder.losses) >= 20
    assert losses[:20] == pytest.approx(recorder.losses[:20], rel=1e-5)
    assert settings == wanted.settings
    assert metrics == pytest.approx(wanted.metrics, abs=0.02)
    assert np.load(tmp_path / "predictions.npy") == pytest.approx(wanted.predictions, abs=1e-2)


@pytest.mark.unit
@pytest.mark.slow
def test_a_tuning_that_is_killed_and_goes_on_ends_with_the_same_bits(tmp_path: Path) -> None:
    wanted = tune(tmp_path / "undisturbed", "regression")
    killed = tmp_path / "killed"
    for steps in (3, 8):  # within the first epoch, and over its end
        command = [sys.executable, __file__, str(killed), str(steps)]
        life = subprocess.run(command, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, check=False)
        assert life.returncode == -signal.SIGKILL
    saved = int(committed(str(killed))[-1].rsplit("-", 1)[-1])
    recorder = Recorder()
    found = tune(killed, "regression", recorder=recorder)
    assert len(recorder.losses) == 30 - saved < 30
    assert np.array_equal(found.predictions, wanted.predictions)
    assert (found.metrics, found.settings) == (wanted.metrics, wanted.settings)
    one, other = (
        load_file(f"{committed(str(folder))[-1]}/model.safetensors") for folder in (killed, tmp_path / "undisturbed")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


@pytest.mark.unit
@pytest.mark.slow
def test_a_tuned_encoder_is_better_than_a_frozen_one_and_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model, benchmark, task = tiny_model(), charged("regression"), make_task("regression")
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    features = model.embed_proteins(benchmark.sequences, layer="hidden")
    config = TuneConfig(hidden_size=32, epochs=40, batch_size=32, optimizer=CONFIG.optimizer)
    frozen = two_layer_head(
        task, benchmark, features, config=config, seed=0, place=Workplace(run_dir=str(tmp_path / "frozen"))
    )
    tuned = fine_tune(task, benchmark, model, config=config, seed=0, place=Workplace(run_dir=str(tmp_path / "tuned")))
    none = fine_tune(
        task, shuffled(benchmark), model, config=config, seed=0, place=Workplace(run_dir=str(tmp_path / "shuffled"))
    )
    print({name: one.metrics["spearman"] for name, one in (("frozen", frozen), ("tuned", tuned), ("shuffled", none))})
    assert tuned.metrics["spearman"] >= 0.8
    assert tuned.metrics["spearman"] > frozen.metrics["spearman"]
    assert abs(none.metrics["spearman"]) < 0.3
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_encoder_is_tuned_on_cuda(tmp_path: Path) -> None:
    place = Workplace(run_dir=str(tmp_path), device="cuda")
    config = replace(CONFIG, epochs=40)
    found = fine_tune(make_task("regression"), charged("regression"), tiny_model(), config=config, seed=0, place=place)
    assert found.metrics["spearman"] >= 0.8


@pytest.mark.unit
def test_rows_too_few_for_a_step_are_refused(tmp_path: Path) -> None:
    config = TuneConfig(batch_size=4, micro_batches=8)
    with pytest.raises(DataError, match=r"48 rows in steps of 4 are too few for 1 workers with 8 parts each"):
        fine_tune(
            make_task("classes"),
            charged("classes", 80),
            tiny_model(),
            config=config,
            seed=0,
            place=Workplace(run_dir=str(tmp_path)),
        )


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the tests
    tune(Path(sys.argv[1]), "regression", recorder=Recorder(int(sys.argv[2]), sys.argv[1]))
