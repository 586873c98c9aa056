"""The embedding methods as Python's users call them: one or several, layers, forms, budgets, devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts, tiny_model

from protclip.config import ObjectivesConfig
from protclip.embedding import ProtCLIP
from protclip.errors import ConfigError, DataError, RequestError
from protclip.model.packed import pack_rows

pytestmark = pytest.mark.unit

SEVERAL = ["embed_proteins", "embed_residues", "embed_texts", "embed_properties"]


def test_a_str_is_one_item_and_a_list_several() -> None:
    model = tiny_model(objectives=ObjectivesConfig())
    for name in SEVERAL:
        embed = getattr(model, name)
        one, several = embed("MKTAYIAK"), embed(["MKTAYIAK"])
        assert np.array_equal(one, several[0]), name
        assert one.shape == ((8, 24) if name == "embed_residues" else (24,)), name
        assert len(embed([])) == 0, name
        if name != "embed_residues":
            assert embed([]).shape == (0, 24), name
    vector, residues = model.embed_with_residues("MKTAYIAK")
    assert (vector.shape, residues.shape) == ((24,), (8, 24))
    vectors, lists = model.embed_with_residues([])
    assert (vectors.shape, lists) == ((0, 24), [])
    score = model.score("MKTAYIAK", "binds ATP")
    assert isinstance(score, np.float32)
    assert score == model.score(["MKTAYIAK"], ["binds ATP"])[0]
    assert model.score([], []).shape == (0,)
    assert [len(ids) for ids in model.prepare_proteins("MKT")] == [5]


def test_a_text_with_half_of_a_surrogate_pair_is_refused_by_its_place() -> None:
    with pytest.raises(RequestError, match="text 2 of 2 holds half of a surrogate pair at character 2"):
        tiny_model().embed_texts(["a", "b\udcff"])


def test_any_iterable_of_str_in_an_order_is_several_items() -> None:
    model, sequences = tiny_model(), random_sequences(3)
    wanted = model.embed_proteins(sequences)
    for given in (tuple(sequences), iter(sequences), np.array(sequences), (letters for letters in sequences)):
        assert np.array_equal(model.embed_proteins(given), wanted)


@pytest.mark.parametrize("name", [*SEVERAL, "embed_with_residues"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, r"s: None \(NoneType\) was given"),
        (3, r"s: 3 \(int\) was given"),
        (b"MKT", r"s: b'MKT' \(bytes\) was given"),
        ({"P1": "MKT"}, r"s: {'P1': 'MKT'} \(dict\) was given"),
        ({"MKT"}, r"s: {'MKT'} \(set\) was given"),
        (np.array("MKT"), r"s: array\('MKT', dtype='<U3'\) \(ndarray\) was given"),
        (["MKT", None], r" 2 of 2 is None \(NoneType\)"),
        ([b"MKT"], r" 1 of 1 is b'MKT' \(bytes\)"),
        ([["MKT"]], r" 1 of 1 is \['MKT'\] \(list\)"),
        (["MKT", 7, None], r" 2 of 3 is 7 \(int\)"),
        ([float("nan")], r" 1 of 1 is nan \(float\)"),
    ],
)
def test_what_is_no_str_is_refused_by_its_place(name: str, given: Any, told: str) -> None:
    with pytest.raises(DataError, match=f"^(sequence|text){told}; a (sequence|text) is a str"):
        getattr(tiny_model(), name)(given)


def test_score_takes_pairs_alone() -> None:
    model = tiny_model()
    for sequences, texts, told in [
        ("MKT", ["binds ATP"], "a sequence as str and 1 texts make no pairs"),
        (["MKT"], "binds ATP", "1 sequences and a text as str make no pairs"),
        (None, "binds ATP", "sequences: None"),
        ("MKT", ["binds", None], "text 2 of 2 is None"),
    ]:
        with pytest.raises(DataError, match=told):
            model.score(sequences, texts)  # type: ignore[arg-type]


def test_layers_and_lengths_are_what_the_network_has() -> None:
    model = tiny_model()
    for kind, embed, items in (
        ("protein", model.embed_proteins, random_sequences(7)),
        ("text", model.embed_texts, random_texts(7)),
    ):
        encode = (
            model.protein_tokenizer.encode if kind == "protein" else lambda text: model.text_tokenizer.encode([text])[0]
        )
        projection = model.model.protein_projection if kind == "protein" else model.model.text_projection
        with torch.inference_mode():
            rows = [encode(item) for item in items]
            hidden = model.model.hidden(kind, *pack_rows(rows, torch.device("cpu")))  # type: ignore[arg-type]
            means = torch.stack([part.mean(0) for part in torch.split(hidden, [len(row) for row in rows])])
            projected = projection(means).numpy()
        found = embed(items, layer="hidden")
        assert found.shape == (7, model.hidden_size(kind)) == (7, 16)  # type: ignore[arg-type]
        assert np.abs(found - means.numpy()).max() <= 1e-6
        assert np.abs(embed(items, normalize=False) - projected).max() <= 1e-6
        units = embed(items, layer="hidden", normalize=True)
        assert np.abs(units - found / np.linalg.norm(found, axis=1, keepdims=True)).max() <= 1e-6
        assert np.array_equal(embed(items, layer="projection", normalize=True), embed(items))
    residues = model.embed_residues("MKTAYIAK", layer="hidden")
    assert residues.shape == (8, 16)
    long = random_sequences(1, seed=3)[0] * 4
    for settings in ({"layer": "hidden"}, {"normalize": False}):
        windows = model.embed_proteins([long, "MKT"], long="window-mean", **settings)  # type: ignore[arg-type]
        assert np.abs(windows[1] - model.embed_proteins("MKT", **settings)).max() <= 1e-6  # type: ignore[arg-type]
        assert np.abs(np.linalg.norm(windows, axis=1) - 1).min() > 1e-3


def test_budgets_and_forms_do_not_move_an_embedding() -> None:
    model = tiny_model(objectives=ObjectivesConfig())
    sequences, texts = random_sequences(20), random_texts(20)
    for embed, items in (
        (model.embed_proteins, sequences),
        (model.embed_texts, texts),
        (model.embed_properties, texts),
    ):
        wanted = embed(items)
        assert np.abs(embed(items, tokens_per_batch=1) - wanted).max() <= 1e-6
        tensor = embed(items, convert_to="torch")
        assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32 and not tensor.is_inference()
        assert np.array_equal(tensor.numpy(), wanted)
        assert embed(items[0], convert_to="torch").shape == (24,)
    residues = model.embed_residues(sequences, tokens_per_batch=1, convert_to="torch")
    assert all(isinstance(one, torch.Tensor) for one in residues)
    for one, wanted in zip(residues, model.embed_residues(sequences), strict=True):
        assert np.abs(one.numpy() - wanted).max() <= 1e-5


def test_each_pass_has_the_tokens_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_model(), []
    encode = type(model.model).encode_packed

    def recorded(self: Any, kind: Any, ids_T: torch.Tensor, packing: Any) -> torch.Tensor:
        sizes.append(len(ids_T))
        return encode(self, kind, ids_T, packing)

    monkeypatch.setattr(type(model.model), "encode_packed", recorded)
    model.embed_proteins(["MKT"] * 10, tokens_per_batch=10)  # 5 tokens each
    assert sizes == [10] * 5


def test_progress_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_model()
    model.embed_proteins(random_sequences(5), show_progress=True)
    model.embed_texts(random_texts(5), show_progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "proteins: 100%" in err and "texts: 100%" in err and "5/5" in err
    model.embed_proteins(random_sequences(5))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"layer": "pooler"}, "layer='pooler': allowed are 'projection', 'hidden'"),
        ({"convert_to": "tf"}, "convert_to='tf': allowed are 'numpy', 'torch'"),
        ({"normalize": "yes"}, "normalize='yes': allowed are True, False, None"),
        ({"show_progress": 2}, "show_progress=2: allowed are True, False"),
        ({"tokens_per_batch": 0}, "tokens_per_batch=0: allowed are a whole number of tokens, 1 or more, and None"),
        ({"tokens_per_batch": True}, "tokens_per_batch=True: allowed are"),
        ({"tokens_per_batch": 1.5}, "tokens_per_batch=1.5: allowed are"),
    ],
)
def test_settings_that_are_not_allowed_are_refused_by_name(settings: Any, told: str) -> None:
    model = tiny_model()
    for embed in (model.embed_proteins, model.embed_texts):
        with pytest.raises(ConfigError, match=told):
            embed(["MKT"], **settings)


def test_devices_are_named_and_others_refused() -> None:
    model = tiny_model()
    assert model.to("cpu") is model
    assert model.device == torch.device("cpu")
    parts = (model.model, model.protein_tokenizer, model.text_tokenizer)
    assert ProtCLIP(*parts, device=None).device == torch.device("cpu")
    for device in ("gpu", "cuda:99", "nonsense:0", "meta"):
        with pytest.raises(ConfigError, match=f"device='{device}': allowed here are 'cpu'"):
            model.to(device)
        with pytest.raises(ConfigError, match=f"device='{device}': allowed here are 'cpu'"):
            ProtCLIP(*parts, device=device)
    assert model.device == torch.device("cpu")


def test_repr_tells_what_it_is_without_hashing_weights() -> None:
    model = tiny_model()
    parameters = f"{sum(parameter.numel() for parameter in model.model.parameters()):,}"
    told = f"ProtCLIP({parameters} parameters, dimension=24, device=cpu, dtype=float32, fingerprint="
    assert repr(model) == f"{told}not computed)"
    assert repr(model) == f"{told}not computed)"
    _ = model.fingerprint
    assert repr(model) == f"{told}{model.fingerprint[:12]}…)"
