"""Searches from the command line, in a small index by a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny_model import random_sequences

from protclip.commands.search import main
from protclip.inputs import DTYPES
from protclip.trained_model import ProtCLIP

SEQUENCES = random_sequences(40)
Folders = tuple[ProtCLIP, str, str]

in_each_dtype = pytest.mark.parametrize("folders", DTYPES, indirect=True)


def measured(recall: float) -> dict[str, Any]:
    """Metrics of a model with that recall@1."""
    chance = {"recall@1": 0.001}
    return {"valid": {"num_pairs": 1000, "text_to_protein": {"recall@1": recall}, "chance": chance}}


def ask(folders: Folders, *arguments: str) -> Result:
    _, index, checkpoint = folders
    return CliRunner().invoke(main, [index, "--checkpoint", checkpoint, *arguments])
