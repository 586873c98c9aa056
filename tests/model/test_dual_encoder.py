"""The network: padding, the checkpoint folder, the public class."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts, tiny_model

from protclip import ProtCLIP
from protclip.config import GC_ALONE, EncoderConfig, ModelConfig, ObjectivesConfig
from protclip.data.collate import pad
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.model.build import build_architecture, build_model, build_text_tokenizer
from protclip.model.checkpoint import architecture_fields, load_checkpoint, read_architecture
from protclip.model.packed import pack
from protclip.model.pooling import residue_positions
from protclip.model.record import read_model_sizes

pytestmark = pytest.mark.unit

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def test_padding_does_not_move_an_embedding() -> None:
    model = tiny_model()
    sequences, texts = random_sequences(40), random_texts(40)
    together = model.embed_proteins(sequences)
    alone = np.concatenate([model.embed_proteins([sequence]) for sequence in sequences])
    assert np.abs(together - alone).max() <= 1e-5
    together, alone = model.embed_texts(texts), np.concatenate([model.embed_texts([text]) for text in texts])
    assert np.abs(together - alone).max() <= 1e-5
    # In one padded batch with a much longer one, whatever the token budget does.
    ids = [model.protein_tokenizer.encode(sequence) for sequence in ("MKT", "A" * 60)]
    with torch.inference_mode():
        padded = model.model.encode_packed("protein", *pack([pad(ids, model.protein_tokenizer.pad_id)]))[0].numpy()
    assert np.abs(padded - model.embed_proteins(["MKT"])[0]).max() <= 1e-5


def test_residues_are_the_tokens_between_the_first_and_the_last() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]).bool()
    assert residue_positions(mask).int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_embeddings_are_unit_length_in_input_order() -> None:
    model = tiny_model()
    sequences = random_sequences(30)
    vectors = model.embed_proteins(sequences)
    assert vectors.shape == (30, 24)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert np.abs(model.embed_proteins(sequences[::-1])[::-1] - vectors).max() < 1e-6
    assert model.embed_proteins([]).shape == (0, 24)


def test_similarity_is_the_scaled_cosine() -> None:
    model = tiny_model()
    proteins, texts = model.embed_proteins(["MKTAY"]), model.embed_texts(["binds ATP"])
    assert model.similarity(proteins, texts) == pytest.approx((proteins @ texts.T) / 0.07, rel=1e-5)


def test_what_cannot_be_embedded_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(DataError, match="holds '1' at residue 2"):
        model.embed_proteins(["M1"])
    with pytest.raises(DataError, match="is empty"):
        model.embed_texts([""])


def test_saved_and_loaded_model_embeds_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "model"))
    again = ProtCLIP.from_pretrained(str(tmp_path / "model"))
    assert again.fingerprint == model.fingerprint
    assert np.array_equal(again.embed_proteins(["MKTAYIAK"]), model.embed_proteins(["MKTAYIAK"]))
    assert np.array_equal(again.embed_texts(["binds ATP"]), model.embed_texts(["binds ATP"]))


def test_fingerprint_tells_models_apart_but_not_by_their_logit_scale() -> None:
    model, other, scaled = tiny_model(0), tiny_model(1), tiny_model(0)
    with torch.no_grad():
        scaled.model.logit_scale.fill_(math.log(50.0))
    assert model.fingerprint == tiny_model(0).fingerprint == scaled.fingerprint
    assert model.fingerprint != other.fingerprint


def test_heads_are_saved_and_loaded_and_make_no_other_model(tmp_path: Path) -> None:
    objectives = ObjectivesConfig(pda=0.0, masked_passes="shared")
    model, bare = tiny_model(objectives=objectives), tiny_model()
    model.save_pretrained(str(tmp_path / "model"))
    again = ProtCLIP.from_pretrained(str(tmp_path / "model"))
    assert again.model.architecture.objectives == objectives
    assert {name.split(".")[1] for name in again.model.state_dict() if name.startswith("heads.")} == {
        "mlm_head",
        "segment_attention",
        "segment_head",
    }
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert again.fingerprint == model.fingerprint == bare.fingerprint
    assert np.array_equal(again.embed_proteins(["MKTAYIAK"]), bare.embed_proteins(["MKTAYIAK"]))
    bare.save_pretrained(str(tmp_path / "bare"))
    assert ProtCLIP.from_pretrained(str(tmp_path / "bare")).fingerprint == model.fingerprint


def test_a_checkpoint_says_which_prefixes_its_model_was_trained_for(tmp_path: Path) -> None:
    model, plain = tiny_model(objectives=replace(GC_ALONE, gc_prefixes=(8, 24))), tiny_model()
    for name, one in (("short", model), ("plain", plain)):
        one.save_pretrained(str(tmp_path / name))
    again = ProtCLIP.from_pretrained(str(tmp_path / "short"))
    assert (again.trained_dimensions, plain.trained_dimensions) == ((8, 24), (24,))
    assert [read_model_sizes(str(tmp_path / name)).trained_dimensions for name in ("short", "plain")] == [
        (8, 24),
        (24,),
    ]
    assert again.fingerprint == plain.fingerprint  # the same weights embed the same
    assert "trained to be cut to 8 dimensions" in (tmp_path / "short" / "README.md").read_text()


def test_unknown_objectives_in_a_checkpoint_are_refused() -> None:
    config = architecture_fields(tiny_model().model.architecture)
    assert read_architecture({k: v for k, v in config.items() if k != "objectives"}).objectives == GC_ALONE
    earlier = {name: value for name, value in config["objectives"].items() if name != "gc_prefixes"}
    assert read_architecture({**config, "objectives": earlier}).objectives == GC_ALONE
    with pytest.raises(CheckpointError, match="nonsense"):
        read_architecture({**config, "objectives": {"nonsense": 1}})


def test_inner_encoders_load_into_huggingface_modules(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel, EsmConfig, EsmModel

    tiny_model().save_pretrained(str(tmp_path))
    state = load_file(tmp_path / "model.safetensors")
    architecture = load_checkpoint(str(tmp_path)).model.architecture
    for prefix, module in [
        ("protein_encoder.", EsmModel(EsmConfig.from_dict(architecture.protein.to_dict()), add_pooling_layer=False)),
        ("text_encoder.", BertModel(BertConfig.from_dict(architecture.text.to_dict()), add_pooling_layer=False)),
    ]:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        result = module.load_state_dict(inner, strict=False)
        assert not result.unexpected_keys
        assert all(key.startswith("contact_head.") for key in result.missing_keys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "text_tokenizer/tokenizer.json", "manifest.json"])
def test_a_checkpoint_with_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    tiny_model().save_pretrained(str(tmp_path))
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        ProtCLIP.from_pretrained(str(tmp_path))


def test_a_checkpoint_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        ProtCLIP.from_pretrained(str(tmp_path / "nothing"))
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "pairs", "schema_version": 1, "files": {}}))
    with pytest.raises(
        CheckpointError,
        match=r"is a folder of pairs \(made by curate\), and a checkpoint \(made by pretrain\) is needed here",
    ):
        ProtCLIP.from_pretrained(str(tmp_path))


def test_cut_short_weights_are_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(str(tmp_path))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="bytes, the manifest says"):
        ProtCLIP.from_pretrained(str(tmp_path))


def test_checkpoint_goes_to_any_fsspec_path() -> None:
    model = tiny_model()
    model.save_pretrained("memory://checkpoints/tiny")
    again = ProtCLIP.from_pretrained("memory://checkpoints/tiny")
    assert np.array_equal(again.embed_proteins(["MKT"]), model.embed_proteins(["MKT"]))


def test_pretrained_encoders_come_from_a_folder_and_the_text_side_is_frozen(tmp_path: Path) -> None:
    tiny = tiny_model()
    protein = tiny.model.protein_encoder
    text = tiny.model.text_encoder
    protein.save_pretrained(tmp_path / "esm", save_original_format=False)  # type: ignore[operator]
    text.save_pretrained(tmp_path / "bert", save_original_format=False)  # type: ignore[operator]
    tiny.text_tokenizer.save(str(tmp_path / "bert"))
    config = ModelConfig(
        projection_dim=24,
        protein=EncoderConfig(max_tokens=64, pretrained=str(tmp_path / "esm")),
        text=EncoderConfig(max_tokens=32, pretrained=str(tmp_path / "bert")),
    )
    tokenizer = build_text_tokenizer(config, [])
    assert tokenizer.encode(["binds ATP"]) == tiny.text_tokenizer.encode(["binds ATP"])
    model = build_model(config, build_architecture(config, tokenizer), seed=5)
    for name, tensor in tiny.model.state_dict().items():
        if "_encoder." in name:
            assert torch.equal(model.state_dict()[name], tensor), name
    model.train()
    assert not any(parameter.requires_grad for parameter in model.text_encoder.parameters())
    assert not model.text_encoder.training
    assert model.protein_encoder.training
    assert all(parameter.requires_grad for parameter in model.text_projection.parameters())


def test_encoders_that_cannot_be_had_or_cannot_work_are_refused(tmp_path: Path) -> None:
    def architecture(protein: EncoderConfig, text: EncoderConfig) -> None:
        config = ModelConfig(protein=protein, text=text)
        build_architecture(config, build_text_tokenizer(config, ["a b c"]))

    protein, text = EncoderConfig(max_tokens=8, config=SHAPE), EncoderConfig(max_tokens=8, config={"vocab_size": 50})
    missing = EncoderConfig(max_tokens=8, pretrained=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="neither a folder with a model nor a hub name"):
        architecture(missing, text)
    with pytest.raises(ConfigError, match="neither a folder with a model nor a hub name"):
        architecture(protein, missing)
    with pytest.raises(ConfigError, match=r"model\.protein\.config: EsmConfig has no field nonsense"):
        architecture(EncoderConfig(max_tokens=8, config={"nonsense": 1}), text)
    with pytest.raises(ConfigError, match=r"max_tokens=600 is above the encoder's 512"):
        architecture(protein, EncoderConfig(max_tokens=600, config={"vocab_size": 50}))
    with pytest.raises(ConfigError, match="vocab_size=None"):
        architecture(protein, EncoderConfig(max_tokens=8, config={}))
