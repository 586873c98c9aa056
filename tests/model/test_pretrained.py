"""Published encoders are what their folder says, or refused before anything starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from pairs_folders import row, write_pairs
from safetensors.torch import load_file, save_file
from tiny_model import random_sequences, random_texts

from protclip.__main__ import cli
from protclip.config import EncoderConfig, ModelConfig
from protclip.data.tokenize import ESM2_VOCABULARY, TextTokenizer
from protclip.errors import ConfigError
from protclip.model import inference
from protclip.model.build import (
    ESM2_FIELDS,
    build_architecture,
    build_model,
    build_text_tokenizer,
    check_architecture,
)
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """esm and bert, as HuggingFace saves models with heads; and pairs."""
    from transformers import BertConfig, BertForPreTraining, EsmConfig, EsmForMaskedLM

    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)
    EsmForMaskedLM(EsmConfig(**{**ESM2_FIELDS, **SHAPE})).save_pretrained(folder / "esm")
    tokenizer = TextTokenizer.train(random_texts(50), vocabulary_size=120, max_tokens=64)
    bert = BertConfig(**SHAPE, vocab_size=tokenizer.vocabulary_size)  # with dropout, as published ones have
    BertForPreTraining(bert).save_pretrained(folder / "bert")
    tokenizer.save(str(folder / "bert"))
    sequences, texts = random_sequences(40), random_texts(40)
    rows = [
        row(Entry(accession=f"A{i}", sequence=sequence, function=text))
        for i, (sequence, text) in enumerate(zip(sequences, texts, strict=True))
    ]
    write_pairs(folder / "pairs", {"train-00000-of-00001": rows[:30], "valid-00000-of-00001": rows[30:]})
    return folder


@pytest.fixture
def folders(published: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(published, tmp_path / "here")
    return tmp_path / "here"


def model_config(folders: Path, **options: Any) -> ModelConfig:
    return ModelConfig(
        projection_dim=8,
        protein=EncoderConfig(max_tokens=64, pretrained=str(folders / "esm")),
        text=EncoderConfig(max_tokens=64, pretrained=str(folders / "bert")),
        **options,
    )


def dry_run(folders: Path) -> str:
    """What pretrain says before anything starts."""
    encoders = [f"model.{kind}={{pretrained: {folders / name}, max_tokens: 64}}" for kind, name in ENCODERS.items()]
    paths = [f"data.pairs={folders / 'pairs'}", f"run_dir={folders / 'run'}"]
    sizes = ["batch.global_batch_size=4", "data.lanes=2", "model.projection_dim=8"]
    command = ["pretrain", "tiny_cpu", *paths, *encoders, *sizes, "--dry-run"]
    return CliRunner().invoke(cli, command, catch_exceptions=False).output


ENCODERS = {"protein": "esm", "text": "bert"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = weights(folder)
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


def rewrite_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(folder: Path) -> None:
    """Two shards and their index in place of the one file."""
    names = sorted(weights(folder))
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in halves.items():
        save_file({name: weights(folder)[name] for name in some}, folder / file)
    places = {name: file for file, some in halves.items() for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model.safetensors").unlink()


def pickle(folder: Path) -> None:
    torch.save(weights(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def old_names(folder: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = (
                state.pop(name)
            )
        state["bert.embeddings.position_ids"] = torch.arange(512)[None]

    rewrite(folder / "bert", change)


def bare(folder: Path) -> None:
    """Encoders alone, without what stands before their names."""
    for name in ENCODERS.values():
        rewrite(
            folder / name,
            lambda state, prefix=f"{name}.": [
                state.__setitem__(key.removeprefix(prefix), tensor) if key.startswith(prefix) else None
                for key, tensor in [(key, state.pop(key)) for key in list(state)]
            ],
        )


INV_FREQ = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"


def as_published(folder: Path) -> None:
    """ESM-2's files hold rotary frequencies of each layer, positions that nothing reads, and no frequencies of all."""

    def change(state: dict[str, torch.Tensor]) -> None:
        state.pop(INV_FREQ.format("*"))  # as transformers writes it
        for layer in range(2):  # as rounded to half precision: not those that follow from the configuration
            state[INV_FREQ.format(layer)] = torch.tensor([1.0, 0.0999756, 0.0100021, 0.00100040])
        state["esm.embeddings.position_ids"] = torch.arange(1026)[None]
        state["esm.embeddings.position_embeddings.weight"] = torch.ones(1026, 16)
        state["esm.contact_head.regression.weight"] = torch.ones(1, 4)

    rewrite(folder / "esm", change)
    (folder / "esm" / "vocab.txt").write_text("\n".join(ESM2_VOCABULARY))


def legacy_pickle(folder: Path) -> None:
    torch.save(weights(folder), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


def vocabulary_file(folder: Path) -> None:
    """As BERT's oldest folders: no tokenizer.json."""
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=ids.__getitem__)))
    (folder / "tokenizer.json").unlink()


SPELLINGS: dict[str, Damage] = {
    "one file": lambda _: None,
    "shards": lambda folder: shard(folder / "bert"),
    "a pickle": lambda folder: pickle(folder / "bert"),
    "an old pickle": lambda folder: legacy_pickle(folder / "esm"),
    "old names": old_names,
    "no prefix": bare,
    "ESM-2 as published": as_published,
    "a vocabulary file": lambda folder: vocabulary_file(folder / "bert"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_encoders_load_as_huggingface_loads_them_however_their_folder_is_written(folders: Path, spelling: str) -> None:
    from transformers import BertModel, EsmModel

    SPELLINGS[spelling](folders)
    wanted = {
        "protein_encoder": EsmModel.from_pretrained(folders / "esm", add_pooling_layer=False).state_dict(),
        "text_encoder": BertModel.from_pretrained(folders / "bert", add_pooling_layer=False).state_dict(),
    }
    config = model_config(folders)
    tokenizer = build_text_tokenizer(config, [])
    architecture = build_architecture(config, tokenizer)
    check_architecture(config, architecture)
    state = build_model(config, architecture, seed=1).state_dict()
    for side, tensors in wanted.items():
        names = {name.removeprefix(f"{side}.") for name in state if name.startswith(f"{side}.")}
        assert names == {name for name in tensors if not name.startswith("contact_head.")}
        for name in names:
            assert torch.equal(state[f"{side}.{name}"], tensors[name]), name


def test_half_precision_weights_are_widened(folders: Path) -> None:
    state = weights(folders / "bert")
    rewrite(folders / "bert", lambda state: state.update({name: tensor.half() for name, tensor in state.items()}))
    config = model_config(folders)
    model = build_model(config, build_architecture(config, build_text_tokenizer(config, [])), seed=1)
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(model.text_encoder.state_dict()[name], state[f"bert.{name}"].half().float())


QUERY = "encoder.layer.1.attention.self.query.weight"


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda state: [state.pop(name) for name in names] and None


def more_tokens(folder: Path) -> None:
    tokenizer = TextTokenizer.train(random_texts(50), vocabulary_size=120, max_tokens=64)
    rewrite_json(folder / "bert" / "config.json", vocab_size=tokenizer.vocabulary_size - 1)
    size = tokenizer.vocabulary_size - 1
    rewrite(
        folder / "bert",
        lambda state: state.update({(name := "bert.embeddings.word_embeddings.weight"): state[name][:size].clone()}),
    )


def of_another_language(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "of", "naïve", "élan", "kinase"]
    (folder / "bert" / "vocab.txt").write_text("\n".join(words))
    (folder / "bert" / "tokenizer.json").unlink()


REFUSED: dict[str, tuple[Damage, str]] = {
    "a weight of the text encoder": (
        lambda folder: rewrite(folder / "bert", without(f"bert.{QUERY}")),
        rf"model.text.pretrained=.*bert': its weights lack 1 tensors that the encoder needs, such as {QUERY}",
    ),
    "a weight of the protein encoder": (
        lambda folder: rewrite(folder / "esm", without(f"esm.{QUERY}", "esm.encoder.emb_layer_norm_after.bias")),
        "model.protein.pretrained=.*esm': its weights lack 2 tensors",
    ),
    "weights under other names": (
        lambda folder: rewrite(
            folder / "bert",
            lambda state: state.update({f"roberta.{name}": state.pop(name) for name in list(state)}),
        ),
        "its weights lack 37 tensors",
    ),
    "a weight of another shape": (
        lambda folder: rewrite(folder / "bert", lambda state: state.update({f"bert.{QUERY}": torch.ones(16, 8)})),
        rf"bert.{QUERY} has shape \(16, 8\), and config.json asks for \(16, 16\)",
    ),
    "a configuration of other shapes": (
        lambda folder: rewrite_json(folder / "bert" / "config.json", hidden_size=32),
        r"has shape .*, and config.json asks for",
    ),
    "a layer that the configuration lacks": (
        lambda folder: rewrite_json(folder / "esm" / "config.json", num_hidden_layers=1),
        "16 tensors that config.json has no layer for, such as encoder.layer.1",
    ),
    "layers of other rotary frequencies": (
        lambda folder: rewrite(folder / "esm", lambda state: state.update({INV_FREQ.format(1): torch.ones(4)})),
        "rotary_embeddings.inv_freq differs from that of another layer",
    ),
    "quantised weights": (
        lambda folder: rewrite(
            folder / "bert", lambda state: state.update({f"bert.{QUERY}": torch.ones(16, 16, dtype=torch.int8)})
        ),
        "does not hold floating-point numbers",
    ),
    "a missing shard": (
        lambda folder: (shard(folder / "bert"), (folder / "bert" / "model-00002-of-00002.safetensors").unlink()),
        "model-00002-of-00002.safetensors: is missing",
    ),
    "a shard that is cut short": (
        lambda folder: (
            shard(folder / "bert"),
            (file := folder / "bert" / "model-00002-of-00002.safetensors").write_bytes(file.read_bytes()[:-9]),
        ),
        "model-00002-of-00002.safetensors: is not a whole safetensors file",
    ),
    "a missing shard of a pickle": (
        lambda folder: (
            pickle(folder / "bert"),
            (folder / "bert" / "pytorch_model.bin").unlink(),
            (folder / "bert" / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "part.bin"}}'),
        ),
        "lacks part.bin",
    ),
    "a pickle of something else": (
        lambda folder: (pickle(folder / "bert"), torch.save([1], folder / "bert" / "pytorch_model.bin")),
        "does not hold weights by name",
    ),
    "a pickle that would run code": (
        lambda folder: (
            pickle(folder / "bert"),
            (folder / "bert" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo no'\ntR."),
        ),
        "pytorch_model.bin cannot be read as weights",
    ),
    "a pointer of Git LFS": (
        lambda folder: (folder / "esm" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        "is not a whole safetensors file",
    ),
    "no weights": (lambda folder: (folder / "esm" / "model.safetensors").unlink(), "lacks model.safetensors"),
    "no configuration": (lambda folder: (folder / "esm" / "config.json").unlink(), "config.json: cannot be read"),
    "a configuration of another model": (
        lambda folder: rewrite_json(folder / "bert" / "config.json", model_type="roberta"),
        "is of type 'roberta', not 'bert'",
    ),
    "other positions": (
        lambda folder: rewrite_json(folder / "bert" / "config.json", position_embedding_type="relative_key"),
        "has 'relative_key' positions",
    ),
    "no tokenizer": (lambda folder: (folder / "bert" / "tokenizer.json").unlink(), "neither tokenizer.json nor vocab"),
    "a tokenizer that is none": (
        lambda folder: (folder / "bert" / "tokenizer.json").write_text("{}"),
        "does not describe a tokenizer",
    ),
    "an empty vocabulary": (
        lambda folder: (vocabulary_file(folder / "bert"), (folder / "bert" / "vocab.txt").write_text("")),
        r"lacks \[PAD\]",
    ),
    "a tokenizer larger than the embeddings": (more_tokens, r"the text tokenizer has \d+ tokens and the text encoder"),
    "another alphabet": (
        lambda folder: (folder / "esm" / "vocab.txt").write_text("\n".join(reversed(ESM2_VOCABULARY))),
        "vocab.txt is not ESM-2's alphabet",
    ),
    "another mask": (
        lambda folder: rewrite_json(folder / "esm" / "config.json", mask_token_id=31),
        "the protein encoder has mask_token_id=31",
    ),
    "a vocabulary of another language": (of_another_language, r"does not know \d+% of the words of 30 training texts"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_encoder_that_is_not_whole_is_refused_before_anything_starts(folders: Path, what: str) -> None:
    damage, message = REFUSED[what]
    damage(folders)
    with pytest.raises(ConfigError, match=message) as caught:
        dry_run(folders)
    assert "\n" not in str(caught.value)
    assert not (folders / "run").exists()


def test_whole_encoders_pass(folders: Path) -> None:
    assert "nothing was written" in dry_run(folders)


@pytest.mark.parametrize(("fast", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_the_machine_that_starts_the_run_decides_its_precision(
    folders: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: str
) -> None:
    monkeypatch.setattr(inference, "has_fast_bfloat16", lambda: fast)
    assert f"\nprecision: {dtype}\n" in dry_run(folders)
