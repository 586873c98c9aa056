"""The model card of a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import tiny_model

pytestmark = pytest.mark.unit


def card(folder: Path, **record: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Front matter and sections of a saved model's card."""
    model = tiny_model()
    model.save_pretrained(str(folder), **record)
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    sections = {part.partition("\n")[0]: part.partition("\n")[2] for part in body.split("\n## ")[1:]}
    assert model.fingerprint in sections["Model"]
    return yaml.safe_load(front), sections


def test_card_tells_data_recipe_and_metrics_that_the_manifest_records(tmp_path: Path) -> None:
    metrics = {"epoch": 3, "valid": {"loss": 1.25, "text_to_protein": {"recall@10": 0.875}}}
    run = {"data": {"pairs": "/data/pairs"}, "optimizer": {"learning_rate": 1e-5}}
    front, sections = card(tmp_path, metrics=metrics, run=run)
    assert list(sections) == ["Use", "Model", "Data", "Recipe", "Metrics", "Licence"]
    assert "`/data/pairs`" in sections["Data"]
    assert yaml.safe_load(sections["Recipe"].split("```")[1].removeprefix("yaml")) == run
    assert "| valid.text_to_protein.recall@10 | 0.875 |" in sections["Metrics"]
    (result,) = front["model-index"][0]["results"]
    assert {"type": "recall@10", "name": "text_to_protein.recall@10", "value": 0.875} in result["metrics"]
    assert front["license"] == "apache-2.0" and front["library_name"] == "protclip"
    assert "| protein | esm | 1 | 16 |" in sections["Model"]


def test_card_says_what_is_not_recorded(tmp_path: Path) -> None:
    front, sections = card(tmp_path)
    assert "model-index" not in front
    assert {sections[name].strip() for name in ("Data", "Recipe", "Metrics")} == {"Not recorded."}


def test_the_card_s_example_runs(tmp_path: Path) -> None:
    _, sections = card(tmp_path)
    code = sections["Use"].split("```")[1].removeprefix("python").replace("path/of/this/folder", str(tmp_path))
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["scores"].shape == (1, 1)
