"""The dtype of the computation: decided once, by the driver, and followed by whoever goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from index_folders import unit_vectors, write_embeddings
from tiny_model import tiny_model

from protclip.__main__ import cli
from protclip.embeddings import embed
from protclip.errors import ConfigError
from protclip.manifest import read_claim
from protclip.model import inference

pytestmark = pytest.mark.unit


class KilledError(Exception):
    """Stands for a kill once the folder is claimed."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the command on a processor, and kills it when its folder is claimed; returns the claimed dtype."""
    tiny_model().save_pretrained(str(tmp_path / "model"))
    (tmp_path / "mine.fasta").write_text(">a\nMKTAYIAK\n")

    def kill(*_: Any, **__: Any) -> None:
        raise KilledError

    monkeypatch.setattr(embed._Embedding, "run", kill)

    def run(*options: str, fast: bool, output: str = "out") -> str:
        monkeypatch.setattr(inference, "has_fast_bfloat16", lambda: fast)
        arguments = [str(tmp_path / "mine.fasta"), "--checkpoint", str(tmp_path / "model")]
        command = ["embed", *arguments, "--output", str(tmp_path / output), *options]
        with pytest.raises(KilledError):
            CliRunner().invoke(cli, command, catch_exceptions=False)
        return str(read_claim(str(tmp_path / output))["settings"]["dtype"])

    return run


def test_the_drivers_processor_decides_unless_it_is_said_and_a_resumed_run_keeps_it(start: Any, tmp_path: Path) -> None:
    assert start(fast=False, output="slow") == "float32"
    assert start("--dtype", "bfloat16", fast=False, output="asked") == "bfloat16"
    assert start("--use-gpu", fast=False, output="gpu") == "bfloat16"
    assert start(fast=True) == "bfloat16"
    assert start(fast=False) == "bfloat16"
    (tmp_path / "out" / ".work" / "unit").write_text("done")
    with pytest.raises(ConfigError, match=r"settings\.dtype: bfloat16 there, float32 here"):
        start("--dtype", "float32", fast=False)
    assert start("--overwrite", fast=False) == "float32"


def test_a_release_follows_the_previous_embeddings(start: Any, tmp_path: Path) -> None:
    made = {"content": "protein", "long": "truncate", "device": "cpu", "threads": 1, "precision": "float32"}
    fingerprint = tiny_model().fingerprint
    for dtype, fast in (("bfloat16", False), ("float32", True)):
        settings = {**made, "residues": False, "dtype": dtype}
        old = write_embeddings(tmp_path / dtype, unit_vectors(3), fingerprint=fingerprint, settings=settings)
        assert start("--previous", old, fast=fast, output=f"new-{dtype}") == dtype
    with pytest.raises(ConfigError, match="dtype: float32 there, bfloat16 here"):
        start("--previous", old, "--dtype", "bfloat16", fast=True, output="other")


def test_the_unfinished_folder_of_another_command_says_nothing_of_a_dtype(start: Any, tmp_path: Path) -> None:
    (tmp_path / "out" / ".work").mkdir(parents=True)
    (tmp_path / "out" / ".work" / "unit").write_text("done")
    for claim in ('{"settings": 1}', '{"settings": {"dtype": "float16"}}', "[]"):
        (tmp_path / "out" / ".work" / "claim.json").write_text(claim)
        with pytest.raises(ConfigError, match="part of a run that differs"):
            start(fast=False)
