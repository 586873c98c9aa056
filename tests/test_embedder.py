"""The embedding methods as Python's users call them: one or several, layers, forms, budgets, devices,
scores of pairs, residues, and proteins longer than the model sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts, tiny_model

from protclip.config import ObjectivesConfig
from protclip.errors import ConfigError, DataError, RequestError
from protclip.inputs import Dtype
from protclip.model.packed import pack_rows
from protclip.trained_model import ProtCLIP

pytestmark = pytest.mark.unit

SEEN = 62  # residues that the tiny model sees
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


def test_score_is_the_diagonal_of_similarity() -> None:
    model = tiny_model()
    sequences, texts = random_sequences(7), random_texts(7)
    scores = model.score(sequences, texts)
    wanted = np.diag(model.similarity(model.embed_proteins(sequences), model.embed_texts(texts)))
    assert scores.shape == (7,)
    assert scores.dtype == np.float32
    assert scores == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(DataError, match="2 sequences and 1 texts make no pairs"):
        model.score(["MK", "MKT"], ["binds ATP"])


def test_residues_are_projected_tokens_without_the_special_ones() -> None:
    model = tiny_model()
    sequences = random_sequences(9)
    rows = model.embed_residues(sequences)
    assert [row.shape for row in rows] == [(min(len(sequence), SEEN), 24) for sequence in sequences]
    assert {row.dtype for row in rows} == {np.dtype(np.float32)}
    with torch.inference_mode():
        ids = torch.tensor([model.protein_tokenizer.encode(sequences[3]).tolist()])
        hidden = model.model.protein_encoder(input_ids=ids).last_hidden_state[0, 1:-1]
        wanted = model.model.protein_projection(hidden).numpy()
    assert np.abs(rows[3] - wanted).max() <= 1e-5
    assert model.embed_residues([]) == []


def test_each_policy_for_long_proteins_does_what_it_says() -> None:
    model = tiny_model()
    short, exact, longer = "MKTAYIAK", "M" * SEEN, random_sequences(1, seed=3)[0] * 4
    assert len(longer) > 2 * SEEN
    truncated = model.embed_proteins([short, exact, longer])
    assert np.abs(truncated[2] - model.embed_proteins([longer[:SEEN]])[0]).max() <= 1e-6
    assert np.array_equal(model.embed_proteins([short, exact], long="error"), model.embed_proteins([short, exact]))
    with pytest.raises(DataError, match=rf"sequence 2 of 2 has {len(longer)} residues, the model sees {SEEN}"):
        model.embed_proteins([short, longer], long="error")
    with pytest.raises(DataError, match="sequence 1 of 1 has"):
        model.embed_residues([longer], long="error")
    with pytest.raises(ConfigError, match="long='middle': allowed are"):
        model.embed_proteins([short], long="middle")  # type: ignore[arg-type]

    means = model.embed_proteins([short, longer, exact], long="window-mean")
    assert np.abs(means[[0, 2]] - truncated[[0, 1]]).max() <= 1e-6
    assert np.abs(means[1] - truncated[2]).max() > 1e-4
    assert np.abs(np.linalg.norm(means, axis=1) - 1).max() <= 1e-6
    # Two windows that overlap in half: each has 31 residues alone and shares 31, so both weigh the same.
    two = longer[: SEEN + SEEN // 2]
    parts = model.embed_proteins([two[:SEEN], two[SEEN // 2 :]])
    wanted = parts.sum(0) / np.linalg.norm(parts.sum(0))
    assert np.abs(model.embed_proteins([two], long="window-mean")[0] - wanted).max() <= 1e-6


def test_sequences_as_users_write_them_embed_as_their_residues() -> None:
    model = tiny_model()
    plain = model.embed_proteins(["MKTAYIAK"])
    for written in ("mktayiak", "MKTAYIAK*", "MKTA YIAK\n", "  MKTA\r\n\tYIAK*\n"):
        assert np.array_equal(model.embed_proteins([written]), plain)
    assert model.embed_residues(["mk ta*"])[0].shape == (4, 24)
    for written, why in [
        ("MK*TA", r"'\*' at residue 3.*; a stop inside"),
        ("MKT**", r"'\*' at residue 4"),
        ("MK-TA", "'-' at residue 3.*; remove the gaps"),
        ("MK TA.", r"'\.' at residue 5.*write unknown residues as X"),
        ("MKſTA", "'ſ' at residue 3"),
        (" * ", "sequence 1 of 1 is empty"),
    ]:
        with pytest.raises(DataError, match=why):
            model.embed_proteins([written])


def test_bf16_turns_embeddings_hardly_and_fp16_is_refused() -> None:
    exact = tiny_model()
    half = ProtCLIP(exact.model, exact.protein_tokenizer, exact.text_tokenizer, dtype=torch.bfloat16)
    for found, wanted in (
        (half.embed_proteins(random_sequences(20)), exact.embed_proteins(random_sequences(20))),
        (half.embed_texts(random_texts(20)), exact.embed_texts(random_texts(20))),
    ):
        assert found.dtype == np.float32
        assert not np.array_equal(found, wanted)
        assert (found * wanted).sum(1).min() >= 0.9999
        assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert half.fingerprint == exact.fingerprint
    for other in (torch.float16, "float16", "bf16"):
        with pytest.raises(ConfigError, match=r"dtype=(torch\.float16|float16|bf16): allowed are float32, bfloat16"):
            ProtCLIP(exact.model, exact.protein_tokenizer, exact.text_tokenizer, dtype=other)  # type: ignore[arg-type]


@pytest.mark.parametrize("normalize", [None, False])
@pytest.mark.parametrize("long", ["truncate", "window-mean"])
def test_dimensions_are_the_first_numbers_of_the_embedding(normalize: bool | None, long: Any) -> None:
    model, sequences, texts = tiny_model(), random_sequences(6), random_texts(6)
    for dimensions in (1, 8, 24):
        for embed, items, more in (
            (model.embed_proteins, sequences, {"long": long}),
            (model.embed_texts, texts, {}),
        ):
            whole: Any = embed(items, normalize=normalize, **more)  # type: ignore[operator]
            wanted = whole[:, :dimensions]
            if normalize is None:
                wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
            found: Any = embed(items, normalize=normalize, dimensions=dimensions, **more)  # type: ignore[operator]
            assert found.shape == (6, dimensions)
            np.testing.assert_allclose(found, wanted, atol=1e-6)
            if dimensions == 24:
                assert np.array_equal(found, whole)
            one: Any = embed(items[0], normalize=normalize, dimensions=dimensions, **more)  # type: ignore[operator]
            assert one.shape == (dimensions,)
    tensor = model.embed_texts(texts, dimensions=8, convert_to="torch")
    assert np.array_equal(tensor.numpy(), model.embed_texts(texts, dimensions=8))
    assert np.array_equal(model.encode(texts, "text", truncate_dim=8), model.embed_texts(texts, dimensions=8))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dimensions": 0}, "dimensions=0"),
        ({"dimensions": 2.5}, "dimensions=2.5"),
        ({"dimensions": 25}, "an embedding of this model has 24"),
        ({"dimensions": 8, "layer": "hidden"}, "layer='hidden' gives none"),
    ],
)
def test_dimensions_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    model = tiny_model()
    for embed in (model.embed_proteins, model.embed_texts):
        with pytest.raises(ConfigError, match=told):
            embed("MKT", **given)


@pytest.mark.parametrize(("dtype", "filled_up"), [("bfloat16", True), ("float32", False)])
def test_batches_in_bfloat16_on_a_cpu_come_in_few_sizes_and_what_fills_them_up_is_no_answer(
    dtype: Dtype, filled_up: bool
) -> None:
    plain, model = tiny_model(), tiny_model(dtype=dtype)
    sequences, texts, seen = random_sequences(80), random_texts(200), list[int]()
    hooks = [
        module.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
        for name, module in model.model.named_modules()
        if name.endswith("layer.0.attention.self.query")
    ]
    proteins = model.embed_proteins(sequences, tokens_per_batch=1200)
    model.embed_texts(texts, tokens_per_batch=1200)
    vectors, residues = model.embed_with_residues(sequences, tokens_per_batch=1200)
    for hook in hooks:
        hook.remove()
    many = [number for number in seen if number >= 1024]
    assert len(many) > 3
    assert all(number % 64 == 0 for number in many) == filled_up
    np.testing.assert_allclose(proteins, plain.embed_proteins(sequences), atol=0.02)
    assert np.isfinite(vectors).all()
    assert [len(one) for one in residues] == [min(len(sequence), SEEN) for sequence in sequences]
