"""Published checkpoints: import, export, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from official_model import OfficialModel, official_model, write_official
from safetensors.torch import load_file
from tiny_model import random_sequences, random_texts, tiny_model

from protclip import ProtCLIP
from protclip.errors import CheckpointError, ConfigError
from protclip.model.checkpoint import load_checkpoint, save_checkpoint
from protclip.model.dual_encoder import DualEncoder
from protclip.model.official import EXTRAS, export_official, import_official, read_official_architecture
from protclip.model.official_names import LOCAL_SCALE, ROTARY, make_plan

pytestmark = pytest.mark.unit

INV_FREQ = "protein_model.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
TYPES = [torch.float16, torch.float32]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_model().text_tokenizer.save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def source() -> OfficialModel:
    return official_model()


def old_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As older libraries stored them: LayerNorm's gamma and beta, and counters of positions."""
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    counters = {f"{side}_model.embeddings.position_ids": torch.arange(512)[None] for side in ("protein", "text")}
    return {**renamed, **{name: counter.clone() for name, counter in counters.items()}}


# A wrong mapping of names that is its own inverse passes the way there and back: only embeddings show it.
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("old", [False, True], ids=["today's names", "old names"])
def test_imported_model_embeds_as_the_published_one(
    tmp_path: Path, tokenizer: str, dtype: torch.dtype, old: bool
) -> None:
    published = official_model(dtype=dtype)
    tensors = old_names(published.published_tensors()) if old else published.published_tensors()
    folder = write_official(tmp_path / "official", tensors, published.config(), dtype)
    import_official(str(folder), str(tmp_path / "ours"), text_tokenizer=tokenizer)
    # The published model computes in fp32 with the stored inv_freq, which is rounded to the file's type.
    rotary = published.protein_model.rotary_embeddings
    rotary.inv_freq = rotary.inv_freq.to(dtype).float()
    ours = ProtCLIP.from_pretrained(str(tmp_path / "ours"))
    assert ours.max_protein_tokens == 1024
    assert ours.max_text_tokens == 512
    sequences, texts = random_sequences(6), random_texts(6)
    with torch.inference_mode():
        for sequence, vector in zip(sequences, ours.embed_proteins(sequences), strict=True):
            ids = ours.protein_tokenizer.encode(sequence).tolist()
            assert np.abs(published.embed("protein", ids).numpy() - vector).max() <= 1e-5
        for ids, vector in zip(ours.text_tokenizer.encode(texts), ours.embed_texts(texts), strict=True):
            assert np.abs(published.embed("text", ids).numpy() - vector).max() <= 1e-5
    assert ours.model.logit_scale.item() == published.logit_scale.item()


def test_stored_rotary_frequencies_are_used_not_recomputed(
    tmp_path: Path, tokenizer: str, source: OfficialModel
) -> None:
    folder = write_official(tmp_path / "half", source.published_tensors(), source.config(), torch.float16)
    import_official(str(folder), str(tmp_path / "ours"), text_tokenizer=tokenizer)
    used = load_checkpoint(str(tmp_path / "ours")).model.state_dict()[ROTARY]
    exact = source.protein_model.rotary_embeddings.inv_freq
    assert torch.equal(used, exact.half().float())
    assert not torch.equal(used, exact)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("old", [False, True], ids=["today's names", "old names"])
def test_import_then_export_is_bit_exact(
    tmp_path: Path, tokenizer: str, source: OfficialModel, dtype: torch.dtype, old: bool
) -> None:
    tensors = old_names(source.published_tensors()) if old else source.published_tensors()
    folder = write_official(tmp_path / "official", tensors, source.config(), dtype)
    import_official(str(folder), str(tmp_path / "ours"), text_tokenizer=tokenizer)
    assert export_official(str(tmp_path / "ours"), str(tmp_path / "back")) == len(tensors)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert sorted(before) == sorted(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert (
            torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8))
            if tensor.ndim
            else (torch.equal(after[name], tensor))
        ), name
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "back" / name).read_bytes()


def test_every_tensor_is_used_or_has_a_reason_in_the_manifest(
    tmp_path: Path, tokenizer: str, source: OfficialModel
) -> None:
    tensors = source.published_tensors()
    folder = write_official(tmp_path / "official", tensors, source.config(), torch.float16)
    record = import_official(str(folder), str(tmp_path / "ours"), text_tokenizer=tokenizer)
    assert json.loads((tmp_path / "ours/manifest.json").read_text())["official"] == record
    assert set(record["mapped"]) | set(record["beside"]) == set(tensors)
    assert set(record["mapped"]) & set(record["beside"]) == {LOCAL_SCALE}  # of its two values one is used
    assert not [name for name in record["beside"] if "head" in name and "contact" not in name]
    assert all(record["beside"].values())
    # Beside the model, never in it.
    ours = load_file(tmp_path / "ours/model.safetensors")
    assert set(ours) == set(record["mapped"].values())
    assert set(load_file(tmp_path / "ours" / EXTRAS)) == set(record["beside"])
    assert EXTRAS in json.loads((tmp_path / "ours/manifest.json").read_text())["files"]


def test_the_published_size_has_its_813_tensors_all_known() -> None:
    protein = {"hidden_size": 1280, "num_hidden_layers": 33, "num_attention_heads": 20, "intermediate_size": 5120}
    text = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    with torch.device("meta"):
        full = OfficialModel(
            {**official_model().fields["protein"], **protein},
            {**official_model().fields["text"], **text, "vocab_size": 30522},
            512,
        )
        tensors, config = full.published_tensors(), full.config()
        state = DualEncoder(read_official_architecture(config, "folder")).state_dict()
    assert len(tensors) == 813
    assert sum(tensor.numel() for tensor in tensors.values()) == 767_255_546
    plan = make_plan({name: tuple(tensor.shape) for name, tensor in tensors.items()}, state, config, "file")
    assert set(plan.mapped.values()) == set(state)
    assert set(plan.mapped) | set(plan.beside) == set(tensors)


def test_training_heads_go_into_a_model_that_has_them(source: OfficialModel) -> None:
    tensors, config = source.published_tensors(), source.config()
    state = DualEncoder(read_official_architecture(config, "folder")).state_dict()
    heads = {name for name in state if name.startswith("heads.")}
    names = {
        f"{theirs}.{part}.{kind}": f"heads.{ours}.{part}.{kind}"
        for ours, theirs, parts in [
            ("mlm_head", "mlm_head", "023"),
            ("segment_head", "t2p_mlm_head", "023"),
            ("segment_attention", "decoder", ("query", "key", "value")),
        ]
        for part in parts
        for kind in ("weight", "bias")
    }
    names["proto_bank.prototype.weight"] = "heads.prototypes.weight"
    names[LOCAL_SCALE] = "heads.segment_logit_scale"
    assert heads == set(names.values())
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    plan = make_plan(shapes, state, config, "file")
    assert set(plan.mapped.values()) == set(state)
    assert {theirs: plan.mapped[theirs] for theirs in names} == names
    # Its second value, that the model does not hold, is kept too.
    assert LOCAL_SCALE in plan.beside
    assert not [name for name in plan.beside if name.startswith(("mlm_head", "t2p", "decoder", "proto_bank"))]


def test_changed_weights_are_exported_rounded_and_refused_beyond_the_type(
    tmp_path: Path, tokenizer: str, source: OfficialModel
) -> None:
    folder = write_official(tmp_path / "official", source.published_tensors(), source.config(), torch.float16)
    ours = str(tmp_path / "ours")
    record = import_official(str(folder), ours, text_tokenizer=tokenizer)

    def export(value: float) -> torch.Tensor:
        checkpoint = load_checkpoint(ours)
        with torch.no_grad():
            checkpoint.model.protein_projection[0].bias.fill_(value)
        save_checkpoint(
            ours,
            checkpoint.model,
            checkpoint.protein_tokenizer,
            checkpoint.text_tokenizer,
            extra_files=[EXTRAS],
            official=record,
        )
        export_official(ours, str(tmp_path / "back"))
        return load_file(tmp_path / "back/model.safetensors")["protein_projection.0.bias"]

    assert torch.equal(export(0.1), torch.full((24,), 0.1, dtype=torch.float16))
    with pytest.raises(CheckpointError, match=r"protein_projection\.0\.bias reaches 100000, beyond F16"):
        export(1e5)


@pytest.mark.slow
def test_incomplete_and_misshaped_files_are_refused_by_the_tensor_s_name(
    tmp_path: Path, tokenizer: str, source: OfficialModel
) -> None:
    tensors = source.published_tensors()

    def refused(number: int, changed: dict[str, torch.Tensor], match: str) -> None:
        folder = write_official(tmp_path / str(number), changed, source.config(), torch.float32)
        with pytest.raises(CheckpointError, match=match):
            import_official(str(folder), str(tmp_path / "ours"), text_tokenizer=tokenizer)
        assert not (tmp_path / "ours").exists()

    lost = [
        "text_projection.2.bias",
        "logit_scale",
        "predictor.0.weight",
        "decoder.key.bias",
        "text_model.encoder.layer.1.attention.output.LayerNorm.weight",
        INV_FREQ.format(1),
        LOCAL_SCALE,
    ]
    for number, name in enumerate(lost):
        without = {key: tensor for key, tensor in tensors.items() if key != name}
        refused(number, without, f"lacks 1 tensors, such as {name}")
    no_attention = {key: tensor for key, tensor in tensors.items() if not key.startswith("local_cross")}
    refused(10, no_attention, r"such as local_cross_attention\.\*")
    refused(
        11, {**tensors, "protein_projection.0.bias": torch.zeros(7)}, r"protein_projection\.0\.bias has shape \(7,\)"
    )
    refused(12, {**tensors, "mlm_head.3.weight": torch.zeros(33, 5)}, r"mlm_head\.3\.weight has shape \(33, 5\)")
    refused(13, {**tensors, "adapter.weight": torch.zeros(2)}, r"does not know, such as adapter\.weight")
    refused(14, {**tensors, INV_FREQ.format(1): tensors[INV_FREQ.format(0)] + 1}, r"layer\.1\..*inv_freq differs from")
    refused(15, {**tensors, "logit_scale": torch.tensor(torch.nan)}, "logit_scale holds values that are not finite")
    refused(16, {**tensors, "logit_scale": torch.tensor(2)}, r"logit_scale is of type torch\.int64")


def test_foreign_and_damaged_folders_are_refused_by_name(tmp_path: Path, tokenizer: str, source: OfficialModel) -> None:
    folder = write_official(tmp_path / "official", source.published_tensors(), source.config(), torch.float16)

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            import_official(str(folder), str(tmp_path / "ours"), text_tokenizer=tokenizer)

    config, weights = folder / "config.json", folder / "model.safetensors"
    whole, good = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:-10])
    refused(r"model\.safetensors: is not a whole safetensors file")
    weights.unlink()
    refused(r"model\.safetensors: is missing")
    weights.write_bytes(whole)
    config.write_text(good.replace('"FST"', '"protein_text_clip"'))
    refused(r"config\.json: model_type is 'protein_text_clip'")
    config.write_text(good.replace("text_model_config", "something"))
    refused(r"config\.json: text_model_config is missing")
    config.write_text(good[:-20])
    refused(r"config\.json: is not JSON")
    config.unlink()
    refused(r"config\.json: is missing")
    tiny_model().save_pretrained(str(tmp_path / "mine"))
    with pytest.raises(CheckpointError, match="it is one of ours already"):
        import_official(str(tmp_path / "mine"), str(tmp_path / "ours"))
    with pytest.raises(CheckpointError, match="only a checkpoint made by import-official"):
        export_official(str(tmp_path / "mine"), str(tmp_path / "back"))


def test_tokenizers_come_from_where_they_are_said_and_must_fit(
    tmp_path: Path, tokenizer: str, source: OfficialModel
) -> None:
    folder = write_official(tmp_path / "official", source.published_tensors(), source.config(), torch.float32)
    ours = str(tmp_path / "ours")
    with pytest.raises(ConfigError, match=r"has no tokenizer: give that of its text encoder .* by --text-tokenizer"):
        import_official(str(folder), ours)
    short = tmp_path / "short"
    short.mkdir()
    (short / "vocab.txt").write_text("<cls> <pad> <eos> <unk> <mask> L A".replace(" ", "\n"))
    with pytest.raises(ConfigError, match="33 tokens and pads with 1, the tokenizer has 7"):
        import_official(str(folder), ours, protein_tokenizer=str(short), text_tokenizer=tokenizer)
    with pytest.raises(CheckpointError, match=r"vocab\.txt: lacks \[PAD\].* not the vocabulary of a BERT"):
        import_official(str(folder), ours, text_tokenizer=str(short))
    # The published folder's own.
    tiny = tiny_model().text_tokenizer
    tiny.save(str(folder))
    import_official(str(folder), ours)
    assert load_checkpoint(ours).text_tokenizer.json == import_tokenizer(tokenizer)


def import_tokenizer(folder: str) -> str:
    from protclip.data.tokenize import TextTokenizer

    return TextTokenizer.load(folder, max_tokens=512).json
