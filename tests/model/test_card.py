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
    found = {"text_to_protein": {"recall@1": 0.25, "recall@10": 0.875}, "chance": {"recall@1": 0.0125}}
    metrics = {"epoch": 3, "valid": {"loss": 1.25, "num_pairs": 80, **found}}
    run = {"data": {"pairs": "/data/pairs", "lanes": 64}, "optimizer": {"learning_rate": 1e-5}}
    data = {"train_pairs": 12_000, "valid_pairs": 80, "fingerprint": "c0ffee"}
    front, sections = card(tmp_path, metrics=metrics, run=run, data=data)
    assert list(sections) == ["Use", "Model", "Data", "Recipe", "Metrics", "Licence"]
    assert yaml.safe_load(sections["Data"].split("```")[1].removeprefix("yaml")) == {"data": data}
    recipe = yaml.safe_load(sections["Recipe"].split("```")[1].removeprefix("yaml"))
    assert recipe == {"data": {"lanes": 64}, "optimizer": {"learning_rate": 1e-5}}
    assert "| valid.text_to_protein.recall@10 | 0.875 |" in sections["Metrics"]
    assert sections["Metrics"].lstrip().startswith("The right protein comes first for 25.0% of 80 held-out texts")
    (result,) = front["model-index"][0]["results"]
    assert {"type": "recall@10", "name": "text_to_protein.recall@10", "value": 0.875} in result["metrics"]
    assert front["license"] == "apache-2.0" and front["library_name"] == "protclip"
    assert "| protein | esm | 1 | 16 |" in sections["Model"]


def test_card_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    run = {
        "run_dir": "runs/first",
        "data": {"pairs": "s3://lab-bucket/mary/pairs"},
        "model": {
            "protein": {"pretrained": "/home/mary/esm2_t6_8M/", "max_tokens": 512},
            "text": {"pretrained": "microsoft/BiomedNLP", "config": None},
        },
    }
    _, sections = card(tmp_path, run=run, data={"train_pairs": 3, "source": "~/swissprot.dat"})
    text = (tmp_path / "README.md").read_text()
    for name in ("mary", "/home", "s3://", "runs/first", "swissprot", str(tmp_path), str(Path.home())):
        assert name not in text, name
    recipe = yaml.safe_load(sections["Recipe"].split("```")[1].removeprefix("yaml"))
    assert recipe["model"] == {
        "protein": {"pretrained": "esm2_t6_8M", "max_tokens": 512},
        "text": {"pretrained": "microsoft/BiomedNLP", "config": None},
    }


def test_card_says_what_is_not_recorded(tmp_path: Path) -> None:
    front, sections = card(tmp_path)
    assert "model-index" not in front
    assert {sections[name].strip() for name in ("Data", "Recipe", "Metrics")} == {"Not recorded."}


def test_the_card_s_example_runs(tmp_path: Path) -> None:
    _, sections = card(tmp_path)
    code = sections["Use"].split("```")[1].removeprefix("python").replace("path/of/this/folder", str(tmp_path))
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["scores"].shape == (2, 1)
