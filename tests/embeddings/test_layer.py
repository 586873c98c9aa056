"""Hidden states in place of embeddings: for heads, and not for an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import random_sequences, tiny_model

from protclip.embeddings.embed import embed
from protclip.embeddings.reading import read_embeddings
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError, DataError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig

pytestmark = pytest.mark.unit


def test_hidden_states_are_those_of_the_encoder_and_no_index_is_made_of_them(tmp_path: Path) -> None:
    model, sequences = tiny_model(), random_sequences(5)
    model.save_pretrained(str(tmp_path / "model"))
    (tmp_path / "some.fasta").write_text("".join(f">A{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    output = str(tmp_path / "hidden")
    config = EmbedConfig(
        inputs=(str(tmp_path / "some.fasta"),),
        checkpoint=str(tmp_path / "model"),
        output=output,
        layer="hidden",
        dtype="float32",
    )
    manifest = embed(config)
    assert manifest["dimension"] == model.hidden_size("protein")
    embeddings = read_embeddings(output)
    np.testing.assert_allclose(embeddings.vectors, model.embed_proteins(sequences, layer="hidden"), atol=1e-5)
    with pytest.raises(DataError, match="hidden: holds hidden states"):
        build_from(embeddings, str(tmp_path / "index"), IndexConfig())


@pytest.mark.parametrize("other", [{"residues": True}, {"long": "window-mean"}])
def test_hidden_states_of_what_has_none_are_refused(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--layer hidden does not go with --"):
        EmbedConfig(inputs=("a",), checkpoint="b", output="c", layer="hidden", **other)  # type: ignore[arg-type]
