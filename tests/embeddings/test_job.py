"""What ``embed`` looks up before it works."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import random_sequences, tiny_model

from protclip.embeddings.embed import embed
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import CheckpointError

pytestmark = pytest.mark.unit


def test_an_altered_checkpoint_is_refused_before_a_part_is_made_and_a_restored_one_goes_on(tmp_path: Path) -> None:
    model, fasta, output = tmp_path / "model", tmp_path / "a.fasta", tmp_path / "out"
    tiny_model().save_pretrained(str(model))
    fasta.write_text("".join(f">A{i}\n{s}\n" for i, s in enumerate(random_sequences(6, seed=0))))
    config = EmbedConfig(inputs=(str(fasta),), checkpoint=str(model), output=str(output), part_rows=3)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="its SHA-256 is not the manifest's"):
        embed(config)
    assert not output.exists()
    weights.write_bytes(whole)
    assert embed(config)["rows"] == 6
