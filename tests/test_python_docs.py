"""The Python of README and docs/python.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_model

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
@pytest.mark.slow
def test_the_python_of_the_docs_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert blocks
    tiny_model().save_pretrained(str(tmp_path / "quickstart/run/best"))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(block, scope)
    if name == "README.md":
        assert scope["scores"].shape == (2, 1)
        assert [scope[part].shape for part in ("p", "t", "tensors", "features", "same")] == [
            (2, 24),
            (24,),
            (2, 24),
            (16,),
            (1, 24),
        ]
    else:
        assert scope["logits"].shape == scope["output"].logits.shape == (2, 1)
        assert scope["metrics"] == scope["model"].model_card_data.metrics
        assert (tmp_path / "again/manifest.json").exists()
