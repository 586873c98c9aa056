"""Checkpoints whose files were altered and their checksums with them: refused, before memory is taken for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official_model import OfficialModel, write_official
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import tiny_model

from protclip import ProtCLIP
from protclip.config import ObjectivesConfig
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import CheckpointError, ConfigError
from protclip.manifest import describe
from protclip.model.official import export_official, import_official

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model(objectives=ObjectivesConfig(mlm=0.0, bsr=0.0)).save_pretrained(str(tmp_path / "model"))
    return tmp_path / "model"


def rehash(folder: Path, name: str) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = describe(str(folder / name))
    path.write_text(json.dumps(manifest))


def alter_json(folder: Path, name: str, change: Callable[[Any], object]) -> None:
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    rehash(folder, name)


def alter_weight(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[0] += 0.25
    save_file(tensors, path, {"format": "pt"})
    rehash(folder, path.name)


def padded(config: Any) -> Any:
    """The same model, whose encoders are HuggingFace's own."""
    config["attention"] = "padded"
    return config


@pytest.mark.parametrize(
    "name",
    ["protein_encoder.encoder.layer.0.output.dense.weight", "text_projection.0.bias", "protein_encoder.rotary"],
)
def test_an_altered_weight_is_noticed_though_its_checksum_fits(folder: Path, name: str) -> None:
    whole = next(key for key in load_file(folder / "model.safetensors") if key.startswith(name) or "inv_freq" in key)
    fingerprint = json.loads((folder / "manifest.json").read_text())["fingerprint"]
    alter_weight(folder, name if name != "protein_encoder.rotary" else whole)
    with pytest.raises(
        CheckpointError, match=rf"are the model [0-9a-f]{{64}}, and manifest\.json calls it {fingerprint}"
    ):
        ProtCLIP.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda config: config["protein_encoder"].update(token_dropout=False)),
        ("config.json", lambda config: config["text_encoder"].update(layer_norm_eps=1e-3)),
        ("config.json", lambda config: config.update(max_protein_tokens=32)),
        ("text_tokenizer/tokenizer.json", lambda tokenizer: tokenizer["normalizer"].update(lowercase=False)),
    ],
)
def test_an_altered_setting_of_the_embeddings_is_noticed(
    folder: Path, name: str, change: Callable[[Any], object]
) -> None:
    alter_json(folder, name, change)
    with pytest.raises(CheckpointError, match=r"are the model [0-9a-f]{64}, and manifest\.json calls it"):
        ProtCLIP.from_pretrained(str(folder))


def test_what_no_embedding_depends_on_may_be_another(folder: Path) -> None:
    before = ProtCLIP.from_pretrained(str(folder)).fingerprint
    alter_weight(folder, "logit_scale")
    alter_json(folder, "config.json", lambda config: config.update(attention="padded"))
    assert ProtCLIP.from_pretrained(str(folder)).fingerprint == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["protein_encoder"].update(hidden_size=2**20), "has shape"),
        (lambda c: c["protein_encoder"].update(vocab_size=2**31 - 1), "has shape"),
        (lambda c: c["protein_encoder"].update(intermediate_size=2**31 - 1), "has shape"),
        (lambda c: c["protein_encoder"].update(num_attention_heads=4), "inv_freq has shape"),
        (lambda c: c["protein_encoder"].update(num_hidden_layers=10**9), "asks for 1000000000 layers of the protein"),
        (lambda c: padded(c)["protein_encoder"].update(max_position_embeddings=2**31 - 1), "tables of .* beside"),
        (lambda c: padded(c)["text_encoder"].update(max_position_embeddings=2**31 - 1), "tables of .* beside"),
        (lambda c: c["protein_encoder"].update(max_position_embeddings=2**31 - 1), "something was altered"),  # unread
        (lambda c: c["text_encoder"].update(max_position_embeddings=2**31 - 1), "has shape"),
        (lambda c: c["text_encoder"].update(layer_norm_eps="small"), "layer_norm_eps is 'small'; a number"),
        (lambda c: c["text_encoder"].update(vocab_size=10**12), "vocab_size is 1000000000000; a whole number from 1"),
        (lambda c: c["text_encoder"].update(hidden_size="16"), "hidden_size is '16'; a whole number"),
        (lambda c: c["text_encoder"].update(pad_token_id=10**30), "pad_token_id is 10+; restore"),
        (lambda c: c["text_encoder"].update(num_attention_heads=3), "no model can be built from config.json"),
        (lambda c: c.update(projection_dim=2**31 - 1), "no model can be built"),
        (lambda c: c.update(max_text_tokens=10**6), "max_text_tokens=1000000 is above the text encoder's"),
        (lambda c: c["objectives"].update(num_prototypes=10**10), "has shape"),
        (lambda c: c["objectives"].update(num_prototypes=-1), "num_prototypes=-1 must be at least 1"),
        (lambda c: c["objectives"].update(pda="x"), "pda is 'x'; a number"),
    ],
)
def test_sizes_are_compared_with_the_weights_before_memory_is_taken(
    folder: Path, change: Callable[[Any], object], message: str
) -> None:
    alter_json(folder, "config.json", change)
    with pytest.raises(CheckpointError, match=message):
        ProtCLIP.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (2**31, "has the number 2147483648; at most 10,000,000"),
        (119, "tokens up to number 119, and the encoder's table"),
    ],
)
def test_a_token_beyond_the_table_is_refused(folder: Path, number: int, message: str) -> None:
    alter_json(folder, "text_tokenizer/tokenizer.json", lambda state: state["model"]["vocab"].update(zzz=number))
    with pytest.raises(CheckpointError, match=message):
        ProtCLIP.from_pretrained(str(folder))


def test_a_special_token_beyond_the_table_is_refused(folder: Path) -> None:
    def change(state: Any) -> None:
        state["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [500]

    alter_json(folder, "text_tokenizer/tokenizer.json", change)
    with pytest.raises(CheckpointError, match="tokens up to number 500, and the encoder's table"):
        ProtCLIP.from_pretrained(str(folder))


def test_a_tokenizer_without_its_unknown_token_is_refused_before_a_text_comes() -> None:
    state = json.loads(tiny_model().text_tokenizer.json)
    state["model"]["unk_token"] = "[NONE]"
    with pytest.raises(CheckpointError, match=r"does not describe a tokenizer .*\[NONE\]|UNK"):
        TextTokenizer.from_json(json.dumps(state), max_tokens=16)


@pytest.mark.parametrize("tokens", [[f"t{i}" for i in range(300)], ["é"], ["A", "A"]])
def test_an_odd_protein_vocabulary_is_refused(tokens: list[str]) -> None:
    with pytest.raises(ConfigError, match="in ASCII and each once"):
        ProteinTokenizer([*tiny_model().protein_tokenizer.vocabulary, *tokens])


@pytest.mark.parametrize("name", ["../other.safetensors", "/dev/zero", "fifo"])
def test_a_map_of_weights_stays_in_its_folder(folder: Path, name: str) -> None:
    shards = folder / "model.safetensors"
    shards.rename(folder.parent / "other.safetensors")
    index = {"weight_map": dict.fromkeys(load_file(folder.parent / "other.safetensors"), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["model.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if name == "fifo":
        os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=r"as one of its files; allowed are letters|is no regular file"):
        ProtCLIP.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["protein_model_config"].update(hidden_size=2**20), "has shape"),
        (lambda c: c["text_model_config"].update(num_hidden_layers=10**9), "asks for 1000000000 layers of the text"),
        (lambda c: c.update(projection_dim=10**12), "projection_dim is 1000000000000; a whole number"),
        (lambda c: c.update(projection_dim=[]), r"projection_dim is \[\]; a whole number"),
        (lambda c: c.update(text_model_config=[]), r"text_model_config is \[\]; an object"),
        (lambda c: c.update(proto_num="x"), "proto_num is 'x'"),
        (lambda c: c["protein_model_config"].pop("num_hidden_layers"), "num_hidden_layers is missing"),
    ],
)
def test_a_published_config_of_other_sizes_is_refused_before_memory_is_taken(
    tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    source = OfficialModel()
    folder = write_official(tmp_path / "official", source.published_tensors(), source.config(), torch.float16)
    tiny_model().text_tokenizer.save(str(folder))
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        import_official(str(folder), str(tmp_path / "ours"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("header", "[", r"official_extras\.safetensors, header: is not JSON"),
        ("header", '{"x": {"dtype": "F16", "shape": [1e400], "data_offsets": [0, 1]}}', r"x\.shape\.0 is inf"),
        ("config", "[]", "model_type is None"),
    ],
)
def test_extras_that_make_no_sense_are_refused(tmp_path: Path, key: str, value: str, message: str) -> None:
    source = OfficialModel()
    folder = write_official(tmp_path / "official", source.published_tensors(), source.config(), torch.float16)
    ours = tmp_path / "ours"
    tiny_model().text_tokenizer.save(str(folder))
    import_official(str(folder), str(ours))
    path = ours / "official_extras.safetensors"
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(load_file(path), path, {**metadata, key: value})
    rehash(ours, path.name)
    with pytest.raises(CheckpointError, match=message):
        export_official(str(ours), str(tmp_path / "back"))
