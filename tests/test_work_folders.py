"""What a killed run left is found by another version: the names and claims of work folders stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import random_sequences, tiny_model

from protclip import files
from protclip.embeddings.embed import embed
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import DataError
from protclip.manifest import read_claim
from protclip.protanno.curate import CurateConfig, curate
from protclip.protanno.synthetic import synthetic_proteome
from protclip.units import InProcess
from protclip.version import __version__

pytestmark = pytest.mark.unit


class KilledError(Exception):
    """Stands for a kill in the last moment."""


@pytest.fixture(autouse=True)
def killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No manifest is written."""

    def kill(*_: Any, **__: Any) -> None:
        raise KilledError

    for stage in ("protanno.curate", "embeddings.embed"):
        monkeypatch.setattr(f"protclip.{stage}.write_manifest", kill)


def work_folder(folder: Path) -> set[str]:
    (work,) = (path for path in (folder / ".work").iterdir() if path.is_dir())
    return {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}


def test_of_curate(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("".join(synthetic_proteome(20, 2, seed=0)))
    with pytest.raises(KilledError):
        curate(CurateConfig(inputs=(str(tmp_path / "a.dat"),), output=str(tmp_path / "pairs")), InProcess())
    assert read_claim(str(tmp_path / "pairs")) == {
        "software": __version__,
        "settings": {
            "seed": 0,
            "sampling": {
                "dataset": "D",
                "coverage_exponent": 0.5,
                "existence_exponent": 3.0,
                "min_coverage": 0.75,
                "max_existence": 3,
                "draw": "once",
            },
            "deduplicate": False,
            "split": {"method": "minhash", "uniref50": None, "valid_fraction": 0.05, "test_fraction": 0.05},
            "shard_mb": 256,
            "row_group_rows": 512,
        },
        "inputs": {str(tmp_path / "a.dat"): files.identity(str(tmp_path / "a.dat"))},
        "previous": None,
    }
    reports = {"read/000000.json", "read/000000-000000.json", "merge/00000.json", "split/00000.json"}
    assert work_folder(tmp_path / "pairs") >= {*reports, "finish/00000.json", "read/000000-000000.parquet"}


def test_of_embed(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "model"))
    lines = "".join(f">A{i}\n{sequence}\n" for i, sequence in enumerate([*random_sequences(5), "MK7"]))
    (tmp_path / "a.fasta").write_text(lines)
    config = {"inputs": (str(tmp_path / "a.fasta"),), "checkpoint": str(tmp_path / "model"), "dtype": "float32"}
    with pytest.raises(KilledError):
        embed(EmbedConfig(**config, output=str(tmp_path / "e"), part_rows=3))
    assert read_claim(str(tmp_path / "e")) == {
        "software": __version__,
        "model_fingerprint": model.fingerprint,
        "inputs": {
            "files": {str(tmp_path / "a.fasta"): files.identity(str(tmp_path / "a.fasta"))},
            "id_column": None,
            "value_column": None,
        },
        "settings": {
            "dtype": "float32",
            "content": "protein",
            "long": "truncate",
            "device": "cpu",
            "threads": 1,
            "format": "parquet",
            "precision": "float32",
            "deduplicate": False,
            "residues": False,
            "part_rows": 3,
        },
        "previous": None,
    }
    assert work_folder(tmp_path / "e") == {
        "cut.json",
        "cut/00001.jsonl",
        "parts/00000.json",
        "parts/00001.json",
        "parts.total.json",
    }
    with pytest.raises(DataError, match="holds nothing that can be embedded"):
        (tmp_path / "a.fasta").write_text(">A\nMK7\n")
        embed(EmbedConfig(**config, output=str(tmp_path / "other")))
