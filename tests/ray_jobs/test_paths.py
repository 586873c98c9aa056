"""What a path on the command line means to workers, which run in other folders, and inside a submitted job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from index_folders import unit_vectors, write_embeddings

from protclip.__main__ import cli
from protclip.errors import ConfigError
from protclip.index.config import BuildConfig
from ray_jobs import cluster
from ray_jobs.index import main as index_job

pytestmark = pytest.mark.unit


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process is the driver of a submitted job."""
    monkeypatch.setenv(cluster.JOB_CONFIG_VARIABLE, json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "an output": ("index", "/data/e", "--output", "RELATIVE"),
    "embeddings": ("index", "RELATIVE", "--output", "/data/i"),
    "a previous index": ("index", "/data/e", "--output", "/data/i", "--previous", "RELATIVE"),
    "queries": ("index", "/data/e", "--output", "/data/i", "--queries", "RELATIVE"),
    "what is embedded": ("embed", "RELATIVE", "--checkpoint", "/data/c", "--output", "/data/e"),
    "a checkpoint": ("embed", "INPUT", "--checkpoint", "RELATIVE", "--output", "/data/e"),
    "earlier embeddings": (
        "embed",
        "INPUT",
        "--checkpoint",
        "/data/c",
        "--output",
        "/data/e",
        "--previous",
        "RELATIVE",
    ),
    "what is curated": ("curate", "RELATIVE", "--output", "/data/p"),
    "clusters": ("curate", "INPUT", "--output", "/data/p", "--split-by", "uniref50=RELATIVE"),
    "earlier pairs": ("curate", "INPUT", "--output", "/data/p", "--previous", "RELATIVE"),
    "pairs": ("pretrain", "tiny_cpu", "data.pairs=RELATIVE", "run_dir=/data/run"),
    "an encoder": (
        "pretrain",
        "tiny_cpu",
        "data.pairs=/data/pairs",
        "run_dir=/data/run",
        "model.text={pretrained: RELATIVE, max_tokens: 64}",
    ),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_relative_path_is_refused_inside_a_submitted_job(submitted: Path, what: str) -> None:
    (submitted / "RELATIVE").mkdir()
    (submitted / "in.fasta").write_text(">a\nMKV\n")
    arguments = [argument.replace("INPUT", str(submitted / "in.fasta")) for argument in COMMANDS[what]]
    with pytest.raises(ConfigError, match=r"'RELATIVE' is relative.* absolute path or a URL"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_index_tells_its_workers_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("e", "q"):
        write_embeddings(tmp_path / name, unit_vectors(9))
    monkeypatch.chdir(tmp_path)
    found: list[Any] = []

    class SeenError(Exception):
        pass

    def build(config: BuildConfig, _: Any) -> None:
        found.extend([config.embeddings, config.output, config.previous, *config.queries])
        raise SeenError

    monkeypatch.setattr(index_job, "build_index", build)
    with pytest.raises(SeenError):
        CliRunner().invoke(
            cli, ["index", "e", "--output", "i", "--previous", "p", "--queries", "q"], catch_exceptions=False
        )
    assert found == [str(tmp_path / name) for name in "eipq"]
