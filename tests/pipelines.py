"""A small pipeline, from a synthetic proteome to an index, and a driver of it that dies at a given moment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from protclip import files
from protclip.manifest import read_manifest
from protclip.protanno.synthetic import synthetic_proteome

STAGES: dict[str, dict[str, Any]] = {
    "curate": {
        "dataset": "all",
        "split_by": "sequence",
        "valid_fraction": 0.1,
        "test_fraction": 0.1,
        "row_group_rows": 16,
        "shard_mb": 0.02,
    },
    "pretrain": {
        "config": "tiny_cpu",
        "epochs": 2,
        "batch": {"global_batch_size": 16},
        "data": {"lanes": 4, "text_sampling": "none"},
        "selection": {"metric": "loss", "mode": "min"},
        "model": {
            "projection_dim": 32,
            "protein": {"config": {"hidden_size": 16}},
            "text": {"config": {"hidden_size": 16, "vocab_size": 300}},
        },
        "workers": {"num": 1},
        "checkpoint_every_s": 0.0,
        "trackers": [],
    },
    "evaluate": {"tasks": ["retrieval"]},
    "embed": {"part_rows": 16},
    "questions": {"part_rows": 16},
    "index": {"shard_rows": 50},
}
"""Each stage has several units; a checkpoint is written as often as it can be."""

SECRET = "open-sesame-9f3a7c"
"""The password of the storage, which nothing may repeat."""

_DIES = """
from cluster.environment import prepare_environment
prepare_environment()
import os, signal
from protclip.__main__ import main
from ray_jobs.pipeline import run
write = run.write_record
def dying(folder, stage, record):
    if (stage, record.state) == {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, stage, record)
run.write_record = dying
main()
"""


@pytest.fixture
def secret(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a bucket whose password is SECRET."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return s3


def assert_no_secret(folder: str, *printed: str) -> None:
    """Nothing in the folder, and nothing that was printed, holds the password."""
    assert SECRET not in "".join(printed)
    fs, inner = files.filesystem(folder)
    paths = fs.find(inner)
    assert paths
    for path in paths:
        assert SECRET.encode() not in fs.cat_file(path), path


def write_pipeline(path: Path, folder: str, **stages: dict[str, Any] | None) -> Path:
    """A pipeline's file, with a proteome beside it.

    Args:
        path: of the YAML file.
        folder: of the pipeline.
        stages: as in STAGES where they are not given; None leaves one out.
    """
    data = path.with_name("proteome.dat")
    if not data.exists():
        data.write_text("".join(synthetic_proteome(200, 8, seed=0)))
    wanted = {name: settings for name, settings in {**STAGES, **stages}.items() if settings is not None}
    if "curate" in wanted:
        wanted["curate"] = {"inputs": [str(data)], **wanted["curate"]}
    path.write_text(yaml.safe_dump({"folder": folder, **wanted}, sort_keys=False))
    return path


def dying(moment: tuple[str, str]) -> list[str]:
    """The command, which is killed right before it writes a record.

    Args:
        moment: stage and state of the record: ``begun`` is the boundary before a stage; ``done`` that after it, when
            its output is committed and its record is not.
    """
    return [sys.executable, "-P", "-c", _DIES.format(moment=repr(moment))]


def checksums(folder: str) -> dict[str, Any]:
    """Of what a finished pipeline has made: the index with its digest, embeddings, questions, pairs and weights."""
    index = read_manifest(files.join(folder, "index"), "index", verify=True)
    found = {"index": index["files"], "digest": index["digest"]}
    for name, kind in (("pairs", "pairs"), ("embeddings", "embeddings"), ("questions", "embeddings")):
        if files.exists(files.join(folder, name)):
            found[name] = read_manifest(files.join(folder, name), kind, verify=True)["files"]
    weights = read_manifest(files.join(folder, "run", "best"), "checkpoint", verify=True)["files"]
    return {**found, "weights": weights["model.safetensors"]}
