"""An evaluation on Ray: the same numbers as in one process, and encoders that workers tune together."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_files import write_folder
from click.testing import CliRunner
from tiny_model import tiny_model

from protclip.evaluation.evaluate import evaluate
from protclip.evaluation.results import read_results
from protclip.evaluation.settings import EvaluateConfig
from ray_jobs.evaluate.main import main


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_on_ray_find_what_one_process_does(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", seed=0)
    checkpoint, data = str(tmp_path / "best"), str(tmp_path / "data")
    tiny_model().save_pretrained(checkpoint)
    options = ("--tasks", "beta_lactamase", "--tasks", "lin_mf", "--heads", "linear", "--heads", "fine-tuned")
    together = str(tmp_path / "together")
    answer = CliRunner().invoke(main, [checkpoint, "--data", data, "--output", together, *options, "--workers", "2"])
    assert answer.exit_code == 0, answer.output
    alone = evaluate(
        EvaluateConfig(
            checkpoints=(checkpoint,),
            data=data,
            output=str(tmp_path / "alone"),
            tasks=("beta_lactamase", "lin_mf"),
            heads=("linear", "fine-tuned"),
        )
    )
    found = read_results(together)
    order = [(score.task, score.model, score.protocol) for score in alone.scores]
    assert [(score.task, score.model, score.protocol) for score in found.scores] == order
    assert ("beta_lactamase", "best, untrained", "fine-tuned") in order
    for one, other in zip(found.scores, alone.scores, strict=True):
        if one.protocol == "fine-tuned":
            assert one.settings.keys() == other.settings.keys() and one.settings["epochs"] > 1
            assert one.value == pytest.approx(other.value, abs=0.1)
        else:
            assert one.metrics == other.metrics
    assert not (tmp_path / "together" / ".work").exists()
