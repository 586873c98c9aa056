"""A checkpoint's encoders without HuggingFace's classes, against those."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, tiny_model

from protclip import ProtCLIP
from protclip.config import ObjectivesConfig
from protclip.errors import CheckpointError
from protclip.model.bare_encoders import BareEncoder, bare_config
from protclip.model.checkpoint import read_architecture, save_checkpoint
from protclip.model.encoders import Kind, build_encoder, config_fields, encoder_config
from protclip.model.packed import bert_hidden, esm_hidden, pack
from protclip.model.weights import build

pytestmark = pytest.mark.unit

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 33}
ROTARY = {"position_embedding_type": "rotary", "emb_layer_norm_before": False, "mask_token_id": 32, "pad_token_id": 1}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("protein", {**ROTARY, "token_dropout": True, "layer_norm_eps": 1e-5}),
        ("protein", ROTARY),
        ("text", {"max_position_embeddings": 40}),
        ("text", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    ],
)
def test_they_have_the_same_names_and_compute_the_same_bits(kind: Kind, fields: dict[str, Any]) -> None:
    theirs = build_encoder(kind, encoder_config(kind, {**SHAPE, **fields})).eval()
    bare = build_encoder(kind, bare_config(json.loads(json.dumps(config_fields(theirs.config))), "here")).eval()  # type: ignore[arg-type]
    assert isinstance(bare, BareEncoder)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    bare.load_state_dict(theirs.state_dict())  # strict: the same names and shapes
    ids_BL = torch.randint(4, 33, (3, 17), generator=torch.Generator().manual_seed(0))
    ids_T, packing = pack([(ids_BL, torch.arange(17) < torch.tensor([[17], [1], [6]]))])
    hidden = esm_hidden if kind == "protein" else bert_hidden
    assert torch.equal(hidden(bare, ids_T, packing), hidden(theirs, ids_T, packing))


def test_a_model_that_was_loaded_is_saved_as_the_same_model(tmp_path: Path) -> None:
    tiny_model(objectives=ObjectivesConfig()).save_pretrained(str(tmp_path / "first"))
    loaded = ProtCLIP.from_pretrained(str(tmp_path / "first"))
    assert isinstance(loaded.model.protein_encoder, BareEncoder)
    parts = (loaded.model, loaded.protein_tokenizer, loaded.text_tokenizer)
    assert save_checkpoint(str(tmp_path / "second"), *parts) == loaded.fingerprint
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_padded_model_has_huggingfaces_own_and_the_same_embeddings(tmp_path: Path) -> None:
    model = tiny_model()
    sequences = random_sequences(20)
    before_ND = model.embed_proteins(sequences)
    model.model.architecture = replace(model.model.architecture, attention="padded")
    model.save_pretrained(str(tmp_path))
    loaded = ProtCLIP.from_pretrained(str(tmp_path))
    assert not isinstance(loaded.model.protein_encoder, BareEncoder)
    np.testing.assert_allclose(loaded.embed_proteins(sequences), before_ND, atol=1e-6)


def test_an_activation_that_nobody_knows_is_refused_when_the_model_is_loaded(tmp_path: Path) -> None:
    tiny_model().save_pretrained(str(tmp_path / "c"))
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    config["text_encoder"]["hidden_act"] = "nonsense"
    with pytest.raises(CheckpointError, match=r"no model can be built from config\.json .*nonsense"):
        build(read_architecture(config), "here")
