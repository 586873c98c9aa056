"""transformers reads our folders: AutoModel the whole, EsmModel and BertModel an encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts, tiny_model

from protclip import ProtCLIP
from protclip.config import ObjectivesConfig
from protclip.errors import ConfigError
from protclip.manifest import write_manifest

pytestmark = pytest.mark.unit


def tokens(folder: Path, items: list[str]) -> dict[str, torch.Tensor]:
    """By transformers' own tokenizer; padded and cut as the model's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    padded = tokenizer(items, padding=True, truncation=True, return_tensors="pt")
    return {name: padded[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("objectives", [ObjectivesConfig(), None])
def test_auto_model_gives_the_embeddings_of_protclip(tmp_path: Path, objectives: ObjectivesConfig | None) -> None:
    from transformers import AutoConfig, AutoModel

    import protclip.auto

    model = tiny_model() if objectives is None else tiny_model(objectives=objectives)
    model.save_pretrained(str(tmp_path))
    assert isinstance(AutoConfig.from_pretrained(tmp_path), protclip.auto.ProtCLIPConfig)
    auto, told = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    assert isinstance(auto, protclip.auto.ProtCLIPModel)

    sequences, texts = random_sequences(6), random_texts(4)
    proteins, biotexts = (
        tokens(tmp_path / "protein_tokenizer", sequences),
        tokens(tmp_path / "text_tokenizer", texts),
    )
    with torch.inference_mode():
        output = auto(
            protein_input_ids=proteins["input_ids"],
            protein_attention_mask=proteins["attention_mask"],
            text_input_ids=biotexts["input_ids"],
            text_attention_mask=biotexts["attention_mask"],
        )
        features = auto.get_protein_features(**proteins), auto.get_text_features(**biotexts)
        unmasked = auto(protein_input_ids=proteins["input_ids"])
        as_tuple = auto(text_input_ids=biotexts["input_ids"], return_dict=False)
    wanted = model.embed_proteins(sequences), model.embed_texts(texts)
    assert np.abs(output.protein_embeds.numpy() - wanted[0]).max() <= 1e-6
    assert np.abs(output.text_embeds.numpy() - wanted[1]).max() <= 1e-6
    assert output.logits.numpy() == pytest.approx(model.similarity(*wanted), abs=1e-4)
    assert torch.equal(unmasked.protein_embeds, output.protein_embeds)
    assert unmasked.text_embeds is None and unmasked.logits is None
    assert len(as_tuple) == 1 and torch.equal(as_tuple[0], output.text_embeds)
    for found, embed, items in zip(
        features, (model.embed_proteins, model.embed_texts), (sequences, texts), strict=True
    ):
        assert np.abs(found.pooler_output.numpy() - embed(items, normalize=False)).max() <= 1e-6
    hidden = features[0].last_hidden_state
    assert hidden.shape == (*proteins["input_ids"].shape, 16)
    for row, residues in zip(hidden.numpy(), model.embed_residues(sequences, layer="hidden"), strict=True):
        assert np.abs(row[1 : len(residues) + 1] - residues).max() <= 1e-6


def test_what_auto_model_saves_protclip_reads(tmp_path: Path) -> None:
    from transformers import AutoModel

    import protclip.auto

    model = tiny_model()
    model.save_pretrained(str(tmp_path / "one"))
    auto = AutoModel.from_pretrained(tmp_path / "one")
    auto.save_pretrained(tmp_path / "two", max_shard_size="20KB")
    assert (tmp_path / "two/model.safetensors.index.json").exists()
    again = ProtCLIP.from_pretrained(str(tmp_path / "two"))
    assert again.fingerprint == model.fingerprint
    with torch.no_grad():
        auto.network.protein_projection[2].bias += 1.0
    auto.save_pretrained(tmp_path / "two")
    changed = ProtCLIP.from_pretrained(str(tmp_path / "two"))
    assert changed.fingerprint == auto.to_protclip().fingerprint != model.fingerprint
    other = {f"network.{name}": tensor for name, tensor in model.model.state_dict().items()}
    auto.save_pretrained(tmp_path / "three", state_dict=other)
    assert ProtCLIP.from_pretrained(str(tmp_path / "three")).fingerprint == model.fingerprint
    auto.save_pretrained(tmp_path / "four", is_main_process=False)
    assert not (tmp_path / "four").exists()

    fresh = AutoModel.from_config(protclip.auto.ProtCLIPConfig.from_pretrained(tmp_path / "one"))
    fresh.name_or_path = ""
    with pytest.raises(ConfigError, match="the tokenizers cannot be had from name_or_path=''"):
        fresh.save_pretrained(tmp_path / "five")


def test_auto_model_learns(tmp_path: Path) -> None:
    from transformers import AutoModel

    import protclip.auto  # noqa: F401

    tiny_model().save_pretrained(str(tmp_path))
    auto = AutoModel.from_pretrained(tmp_path).train()
    proteins, texts = (
        tokens(tmp_path / "protein_tokenizer", ["MKT", "MAA"]),
        tokens(tmp_path / "text_tokenizer", ["a", "b"]),
    )
    output = auto(proteins["input_ids"], None, texts["input_ids"], None)
    torch.nn.functional.cross_entropy(output.logits, torch.arange(2)).backward()
    assert all(parameter.grad is not None for name, parameter in auto.named_parameters() if "_projection" in name)


def test_protclip_imports_without_torch_and_registers_on_demand() -> None:
    script = "import sys, protclip; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


ENCODERS = """
import sys

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, BertModel, EsmModel

for kind, encoder_class in (("protein", EsmModel), ("text", BertModel)):
    folder = f"{sys.argv[1]}/{kind}"
    encoder, told = encoder_class.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert all(name.startswith("contact_head.") for name in told.pop("missing_keys"))
    assert not any(told.values()), told
    assert type(AutoModel.from_pretrained(folder)) is encoder_class
    with open(f"{folder}.txt") as stream:
        items = stream.read().split("\\n")
    padded = AutoTokenizer.from_pretrained(folder)(items, padding=True, truncation=True, return_tensors="pt")
    padded = {name: padded[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        hidden = encoder(**padded).last_hidden_state
    mask = padded["attention_mask"][..., None]
    np.savez(f"{folder}.npz", hidden=hidden, means=(hidden * mask).sum(1) / mask.sum(1))
assert not any(name.startswith("protclip") for name in sys.modules)
"""


@pytest.mark.slow
def test_encoders_load_with_transformers_alone(tmp_path: Path) -> None:
    model = tiny_model()
    sequences, texts = random_sequences(5), random_texts(5)
    for kind, items in (("protein", sequences), ("text", texts)):
        model.save_encoder(kind, str(tmp_path / kind))  # type: ignore[arg-type]
        (tmp_path / f"{kind}.txt").write_text("\n".join(items))
    command = [sys.executable, "-c", ENCODERS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    proteins, biotexts = np.load(tmp_path / "protein.npz"), np.load(tmp_path / "text.npz")
    assert np.abs(proteins["means"] - model.embed_proteins(sequences, layer="hidden")).max() <= 1e-6
    assert np.abs(biotexts["means"] - model.embed_texts(texts, layer="hidden")).max() <= 1e-6
    for row, residues in zip(proteins["hidden"], model.embed_residues(sequences, layer="hidden"), strict=True):
        assert np.abs(row[1 : len(residues) + 1] - residues).max() <= 1e-6


def test_another_kind_of_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind='esm': allowed are 'protein', 'text'"):
        tiny_model().save_encoder("esm", str(tmp_path))  # type: ignore[arg-type]


def test_a_folder_without_architectures_keeps_its_fingerprint(tmp_path: Path) -> None:
    """As older versions wrote it."""
    model = tiny_model()
    model.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config.pop("architectures")) == ("protclip", ["ProtCLIPModel"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = list(json.loads((tmp_path / "manifest.json").read_text())["files"])
    write_manifest(str(tmp_path), "checkpoint", names, fingerprint=model.fingerprint)
    old = ProtCLIP.from_pretrained(str(tmp_path))
    assert old.fingerprint == model.fingerprint
    assert np.array_equal(old.embed_proteins("MKTAYIAK"), model.embed_proteins("MKTAYIAK"))
