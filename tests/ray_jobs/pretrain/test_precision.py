"""A run goes on in the numbers that it began in, on whatever machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from protclip.config import config_dict
from protclip.config_file import load_config
from protclip.model import inference
from ray_jobs.pretrain.run import _precision, find_config

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("fast", [False, True])
def test_a_run_goes_on_in_the_precision_that_it_began_in(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "has_fast_bfloat16", lambda: fast)
    settings = load_config(find_config("tiny_cpu"), ["data.pairs=pairs", f"run_dir={tmp_path}"])
    here = "bfloat16" if fast else "float32"
    assert _precision(settings, fresh=False) == here

    def begun(**changes: Any) -> None:
        values = {**config_dict(settings), **changes}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))

    other = "float32" if fast else "bfloat16"
    begun(precision=other)
    assert _precision(settings, fresh=False) == other
    assert _precision(settings, fresh=True) == here
    assert _precision(replace(settings, precision=here), fresh=False) == here  # as it is asked for
    values = config_dict(settings)
    del values["precision"]  # as earlier versions wrote it, which computed in float32 on CPUs
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert _precision(settings, fresh=False) == "float32"
