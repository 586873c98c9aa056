"""The core trains what is no dual encoder: a linear head, killed and resumed, ends with the same bits."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from protclip.config import OptimizerConfig, Selection, TrainingConfig
from protclip.manifest import write_manifest
from protclip.model.record import KIND
from protclip.model.tensors import save_weights
from protclip.train.checkpoints import best, committed
from protclip.train.learner import Learner
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.run import Run, go_on
from protclip.train.state import PROGRESS, TENSORS, TrainState
from protclip.train.step import Part

pytestmark = pytest.mark.unit

EPOCHS, BATCHES, SIZE, WIDTH = 4, 5, 8, 6
BY_ERROR = Selection(metric="mse", mode="min")
Rows = tuple[Tensor, Tensor]


class LinearHead(Learner[Rows]):
    """Least squares."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(WIDTH, 1)

    def backward(self, batches: Sequence[Rows]) -> dict[str, Tensor]:
        """See Learner."""
        losses = [nn.functional.mse_loss(self.network(x_BD)[:, 0], y_B) for x_BD, y_B in batches]
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"mse": loss.detach()}


def rows(seed: int) -> Rows:
    """Of a linear function with some noise."""
    generator = torch.Generator().manual_seed(seed)
    x_BD = torch.randn(SIZE, WIDTH, generator=generator)
    return x_BD, x_BD @ torch.arange(WIDTH).float() + 0.1 * torch.randn(SIZE, generator=generator)


def train(folder: str, steps: int | None = None) -> str | None:
    """Train the head in a folder; the process kills itself at its own step of this number, if there is one."""
    config = TrainingConfig(
        run_dir=folder,
        epochs=EPOCHS,
        selection=BY_ERROR,
        optimizer=OptimizerConfig(learning_rate=1.0),
        checkpoint_every_s=0.0,
    )
    head = LinearHead()
    ends = [BATCHES * (epoch + 1) for epoch in range(EPOCHS)]
    state = TrainState(
        model=head.network,
        optimizer=build_optimizer(head.network, config.optimizer),
        schedule=build_schedule(config.optimizer, epoch_ends=ends),
    )
    go_on(folder, state, None)
    made = itertools.count()

    def parts(epoch: int, first_batch: int) -> Iterator[Part[Rows]]:
        for batch in range(first_batch, BATCHES):
            if next(made) == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            yield Part(batches=[rows(100 * epoch + batch)], accessions=[""] * SIZE, num_tokens=SIZE, num_places=SIZE)

    @torch.no_grad()
    def measure(_: Any) -> dict[str, float]:
        x_BD, y_B = rows(-1)
        return {"mse": nn.functional.mse_loss(head.network(x_BD)[:, 0], y_B).item()}

    def save_model(path: str, weights: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> None:
        write_manifest(path, KIND, [*save_weights(path, weights), TENSORS, PROGRESS], metrics=metrics)

    return Run(config, state, head, parts=parts, measure=measure, save_model=save_model, observer=None).run()


def last_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(f"{committed(str(folder))[-1]}/model.safetensors")


@pytest.mark.slow
def test_a_linear_head_that_is_killed_and_goes_on_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert train(str(tmp_path / "undisturbed")) is None
    killed = tmp_path / "killed"
    for steps in (3, 4, 6):  # within an epoch, at its end, over one
        life = subprocess.run([sys.executable, __file__, str(killed), str(steps)], check=False)
        assert life.returncode == -signal.SIGKILL
    assert train(str(killed)) is None
    wanted, found = last_weights(tmp_path / "undisturbed"), last_weights(killed)
    assert wanted.keys() == found.keys() == {"weight", "bias"}
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert (
        best(str(killed), BY_ERROR).rsplit("/", 1)[1] == best(str(tmp_path / "undisturbed"), BY_ERROR).rsplit("/", 1)[1]
    )


def test_the_head_learns(tmp_path: Path) -> None:
    assert train(str(tmp_path)) is None
    record = json.loads(Path(best(str(tmp_path), BY_ERROR), "manifest.json").read_text())
    assert record["metrics"]["valid"]["mse"] < rows(-1)[1].square().mean() / 10


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]))
