"""import-official and export-official."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from official_model import official_model, write_official
from tiny_model import tiny_model

from protclip import ProtCLIP
from protclip.__main__ import cli
from protclip.errors import ConfigError

pytestmark = pytest.mark.unit


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("official")
    model = official_model()
    tiny_model().text_tokenizer.save(str(folder / "bert"))
    return write_official(
        folder / "official", model.published_tensors(), model.config(), torch.float16
    ), folder / "bert"


def test_both_ways_by_command(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    official, bert = folders
    result = run("import-official", official, "--output", tmp_path / "ours", "--text-tokenizer", bert)
    assert result.exit_code == 0, result.output
    first, *reasons, last = result.stdout.splitlines()
    assert first.startswith("126 tensors") and "F16" in first and "kept beside the model" in first
    beside = sum(int(line.split()[0]) for line in reasons)
    # One tensor is both: of its two values one is used.
    assert f"{126 - beside + 1} used in fp32, {beside} kept beside" in first
    assert last == f"checkpoint {tmp_path / 'ours'}"
    assert ProtCLIP.from_pretrained(str(tmp_path / "ours")).embed_proteins(["MKT"]).shape == (1, 24)
    assert "lists what of the published file is not used" in (tmp_path / "ours/README.md").read_text()

    result = run("export-official", tmp_path / "ours", "--output", tmp_path / "back")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "back/model.safetensors").read_bytes() == (official / "model.safetensors").read_bytes()
    assert isinstance(run("export-official", tmp_path / "ours", "--output", tmp_path / "back").exception, ConfigError)
    assert run("export-official", tmp_path / "ours", "--output", tmp_path / "back", "--overwrite").exit_code == 0
    result = run("export-official", tmp_path / "ours", "--output", tmp_path / "ours", "--overwrite")
    assert isinstance(result.exception, ConfigError)


def test_import_never_writes_over_another_model(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    official, bert = folders
    before = {path.name: path.read_bytes() for path in official.iterdir()}
    for extra in ([], ["--overwrite"]):
        result = run("import-official", official, "--output", official, "--text-tokenizer", bert, *extra)
        assert isinstance(result.exception, ConfigError)
    assert {path.name: path.read_bytes() for path in official.iterdir()} == before
    # A finished checkpoint is replaced when asked for, by whole files only.
    tiny_model().save_pretrained(str(tmp_path), max_shard_bytes=20_000)
    arguments = ("import-official", official, "--output", tmp_path, "--text-tokenizer", bert)
    assert isinstance(run(*arguments).exception, ConfigError)
    assert run(*arguments, "--overwrite").exit_code == 0
    assert not list(tmp_path.glob("model-*"))
    assert ProtCLIP.from_pretrained(str(tmp_path)).max_protein_tokens == 1024
