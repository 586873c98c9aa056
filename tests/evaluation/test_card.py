"""Scores in a model card: once, and the checkpoint stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import fake_results
from tiny_model import tiny_model

from protclip import files
from protclip.errors import CheckpointError, ConfigError
from protclip.evaluation.card import add_to_card, check_cards
from protclip.manifest import read_manifest
from protclip.model.record import KIND
from protclip.trained_model import ProtCLIP

pytestmark = pytest.mark.unit


def test_scores_stand_in_the_card_once_and_the_checkpoint_is_whole(tmp_path: Path) -> None:
    folder = str(tmp_path / "best")
    tiny_model().save_pretrained(folder, metrics={"valid": {"loss": 1.5}})
    before = (tmp_path / "best" / "README.md").read_text()
    for _ in range(2):
        add_to_card(folder, "best", fake_results())
        card = (tmp_path / "best" / "README.md").read_text()
        assert card.count("## Evaluation") == 1
        assert "| β-lactamase | Spearman's ρ | 0.620 | 0.570 to 0.660 | 0.420 (amino-acid composition) |" in card
        assert "\\* GO-MF: train: 2,286 of 15,551 proteins" in card
        assert card.replace(card[card.index("## Evaluation") : card.index("## Licence")], "") == before
        manifest = read_manifest(folder, KIND, verify=True)
        assert manifest["metrics"] == {"valid": {"loss": 1.5}}
    ProtCLIP.from_pretrained(folder)


@pytest.mark.parametrize("writes", [1, 2])
def test_a_checkpoint_is_whole_wherever_the_writing_ends(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "best")
    tiny_model().save_pretrained(folder)
    real, done = files.atomic_write, []

    def dying(path: str) -> object:
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "atomic_write", dying)
        with pytest.raises(KeyboardInterrupt):
            add_to_card(folder, "best", fake_results())
    read_manifest(folder, KIND, verify=True)
    ProtCLIP.from_pretrained(folder)


def test_what_has_no_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--card: published is no folder"):
        check_cards(("published",))
    with pytest.raises(CheckpointError, match="a checkpoint"):
        add_to_card(str(tmp_path), "best", fake_results())
