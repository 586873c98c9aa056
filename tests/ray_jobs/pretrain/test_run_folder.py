"""The folder of a run that was killed while the folder was claimed or cleared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protclip import files
from protclip.config_file import config_yaml, load_config
from protclip.errors import ConfigError
from ray_jobs.pretrain import run
from ray_jobs.pretrain.run import OWN_FILES, PAIRS_MARK, RESOLVED_CONFIG, find_config

pytestmark = pytest.mark.unit
PAIRS: Any = SimpleNamespace(shards={"train-00000.parquet": "0"}, folder="pairs")


def check(folder: Path) -> None:
    run._check_run(load_config(find_config("tiny_cpu"), (f"run_dir={folder}",)), PAIRS, fresh=False)


@pytest.mark.parametrize("left", [PAIRS_MARK, f"{PAIRS_MARK}.0f3a.tmp", f"{RESOLVED_CONFIG}.0f3a.tmp"])
def test_one_that_was_claimed_by_half_can_be_given_again(tmp_path: Path, left: str) -> None:
    (tmp_path / left).touch()
    check(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(notes\.txt"):
        check(tmp_path)


def test_one_that_was_cleared_by_half_can_be_given_again_and_has_no_checkpoints_without_their_measures(
    tmp_path: Path,
) -> None:
    for name in OWN_FILES:
        (tmp_path / name).touch()
    (tmp_path / RESOLVED_CONFIG).write_text(config_yaml(load_config(find_config("tiny_cpu"), (f"run_dir={tmp_path}",))))
    files.write_json(str(tmp_path / PAIRS_MARK), PAIRS.shards)
    for name in OWN_FILES:
        (tmp_path / name).unlink()
        check(tmp_path)
        assert (tmp_path / "metrics.json").exists() or not (tmp_path / "checkpoints").exists()
