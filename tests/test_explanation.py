"""Numbers per residue: occlusion by hand, segments as in training, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import make_batch, pairs_table, random_sequences, random_texts, tiny_model, tokenized

from protclip import ProtCLIP, explanation
from protclip.config import ObjectivesConfig
from protclip.errors import ConfigError, DataError, RequestError
from protclip.explanation import occlusion, segments
from protclip.model.dynamic_segments import segment_weights
from protclip.model.packed import pack_rows

pytestmark = pytest.mark.unit

SEEN = 62  # residues that the tiny model sees
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"
TEXTS = ["binds ATP", "transports the membrane", "kinase of the nucleus hydrolyses ATP"]
WITH_PDA = ObjectivesConfig(mlm=0.0, bsr=0.0, num_prototypes=8)


def cosine(model: ProtCLIP, ids: list[int], text: str) -> float:
    """Of one protein alone, unpadded, and a text."""
    with torch.inference_mode():
        protein = model.model.encode_packed("protein", *pack_rows([np.array(ids)], torch.device("cpu")))
    return float(protein[0].numpy() @ model.embed_texts([text])[0])


def drop_by_hand(model: ProtCLIP, sequence: str, text: str, start: int, end: int) -> float:
    """Two passes: with the residues, and with <mask> in their places."""
    ids = model.protein_tokenizer.encode(sequence).tolist()
    mask = model.protein_tokenizer.mask_id
    hidden = ids[: start + 1] + [mask] * (end - start) + ids[end + 1 :]
    return cosine(model, ids, text) - cosine(model, hidden, text)


def test_occlusion_is_the_drop_of_the_cosine_when_a_window_is_masked() -> None:
    model = tiny_model()
    scores = occlusion(model, SEQUENCE, TEXTS[:1], window=5)
    assert scores.shape == (1, len(SEQUENCE))
    assert scores.dtype == np.float32
    assert np.abs(scores).max() > 1e-3
    # At the ends the window is cut.
    spans = [(max(0, i - 2), min(len(SEQUENCE), i + 3)) for i in range(len(SEQUENCE))]
    wanted = [drop_by_hand(model, SEQUENCE, TEXTS[0], start, end) for start, end in spans]
    assert scores[0] == pytest.approx(wanted, abs=2e-6)


def test_a_protein_shorter_than_the_window_is_hidden_whole() -> None:
    model = tiny_model()
    scores = occlusion(model, "MKV", TEXTS[:1], window=5)
    assert scores[0] == pytest.approx([drop_by_hand(model, "MKV", TEXTS[0], 0, 3)] * 3, abs=2e-6)
    assert occlusion(model, "M", TEXTS[:1]).shape == (1, 1)


@pytest.mark.parametrize("stride", [2, 3, 4, 7, 21, 22, 100])
def test_every_residue_has_the_number_of_the_nearest_centre(stride: int) -> None:
    model = tiny_model()
    each = occlusion(model, SEQUENCE, TEXTS[:1], window=3)[0]
    strided = occlusion(model, SEQUENCE, TEXTS[:1], window=3, stride=stride)[0]
    last = len(SEQUENCE) - 1
    centers = sorted({min(start + stride // 2, last) for start in range(0, len(SEQUENCE), stride)})
    for i, score in enumerate(strided):
        nearest = min(abs(i - center) for center in centers)
        candidates = [each[center] for center in centers if abs(i - center) == nearest]
        assert min(abs(score - candidate) for candidate in candidates) <= 2e-6
    assert len(set(strided.round(5).tolist())) == len(centers)


def test_a_stride_costs_a_pass_for_each_centre_and_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    seen: list[int] = []
    forward = model.forward_proteins

    def counted(ids: Any) -> np.ndarray:
        seen.append(len(ids))
        return forward(ids)

    monkeypatch.setattr(model, "forward_proteins", counted)
    occlusion(model, SEQUENCE, TEXTS, stride=5)
    assert seen == [1 + 5]


def test_several_texts_have_the_numbers_of_each_alone() -> None:
    model = tiny_model(objectives=WITH_PDA)
    for explain in (occlusion, segments):
        together = explain(model, SEQUENCE, TEXTS)
        alone = np.concatenate([explain(model, SEQUENCE, [text]) for text in TEXTS])
        assert together.shape == (3, len(SEQUENCE))
        assert np.abs(together - alone).max() <= 2e-6
        assert np.abs(together[0] - together[1]).max() > 1e-4
        assert explain(model, SEQUENCE, []).shape == (0, len(SEQUENCE))


def test_occlusion_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    wanted = occlusion(model, SEQUENCE, TEXTS)
    monkeypatch.setattr("protclip.passes.TOKENS_PER_BATCH", 3 * (len(SEQUENCE) + 2))
    assert np.abs(occlusion(model, SEQUENCE, TEXTS) - wanted).max() <= 2e-6


def test_segments_are_the_weights_of_training() -> None:
    model = tiny_model(objectives=WITH_PDA)
    sequences = [SEQUENCE, *random_sequences(3)]
    columns = [["kinase", "binds ATP", None, "the ribosome"], *([text, None, text, None] for text in random_texts(3))]
    batch = make_batch(model, tokenized(model, pairs_table(sequences, columns)))
    with torch.inference_mode():
        alignment = model.model(batch).alignment
        assert alignment is not None
        weights = segment_weights(
            alignment.property_BKD,
            alignment.residue_BLD,
            alignment.residue_mask_BL,
            threshold=WITH_PDA.threshold,
            window=WITH_PDA.segment_window,
        ).numpy()
    # The biotext's label, which tokenisation puts before a name, is part of the property.
    texts = ["PROTEIN NAME: kinase.", "binds ATP", "the ribosome"]
    found = segments(model, SEQUENCE, texts)
    assert found.dtype == np.float32
    assert found.sum(1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert np.abs(found - weights[0, [0, 1, 3], 1 : len(SEQUENCE) + 1]).max() <= 1e-5
    assert (found == 0).any()
    assert np.array_equal(
        model.explain(SEQUENCE, texts[1], method="segments"), segments(model, SEQUENCE, [texts[1]])[0]
    )


def test_properties_are_mixtures_of_prototypes_without_noise_and_plain_where_there_are_none() -> None:
    model = tiny_model(objectives=WITH_PDA)
    network = model.model
    ids = torch.tensor(model.text_tokenizer.encode(TEXTS[:1]))
    with torch.inference_mode():
        pooled = network.text_encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)
        projected = network.text_projection(pooled)
        prototypes = network.heads.prototypes.weight
        mixed = (projected @ prototypes.T / WITH_PDA.gumbel_temperature).softmax(-1) @ prototypes
    assert np.abs(model.embed_properties(TEXTS)[:1] - mixed.numpy()).max() <= 1e-5
    assert np.abs(tiny_model().embed_properties(TEXTS)[:1] - projected.numpy()).max() <= 1e-5
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        model.embed_properties(["binds ATP", ""])


def test_without_pda_the_method_refuses_and_the_function_compares_the_projected_text() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match=r"trained without PDA .*method='occlusion' works"):
        model.explain(SEQUENCE, TEXTS[0], method="segments")
    found = segments(model, SEQUENCE, TEXTS)
    # The direction of u is that of the text's embedding, and weights do not depend on its length.
    similarity = model.embed_texts(TEXTS) @ model.embed_residues([SEQUENCE])[0].T
    low, high = (extreme(axis=1, keepdims=True) for extreme in (similarity.min, similarity.max))
    scaled = (similarity - low) / (high - low)
    kept = np.where(scaled >= 0.3, scaled, 0)
    assert np.abs(found - kept / kept.sum(1, keepdims=True)).max() <= 1e-5


def test_explain_is_one_row_of_the_functions() -> None:
    model = tiny_model()
    scores = model.explain(" mktay IAKQ\n*", TEXTS[0])
    assert scores.shape == (9,)
    assert scores.dtype == np.float32
    assert np.array_equal(scores, occlusion(model, "MKTAYIAKQ", TEXTS[:1], window=explanation.WINDOW)[0])
    narrow = model.explain(SEQUENCE, TEXTS[0], window=3, stride=4)
    assert np.array_equal(narrow, occlusion(model, SEQUENCE, TEXTS[:1], window=3, stride=4)[0])


def test_a_long_protein_has_the_residues_that_were_seen_or_is_refused() -> None:
    model = tiny_model(objectives=WITH_PDA)
    longer = "MKTAYIAKQR" * 7
    for method in ("occlusion", "segments"):
        scores = model.explain(longer, TEXTS[0], method=method)  # type: ignore[arg-type]
        assert scores.shape == (SEEN,)
        assert np.array_equal(scores, model.explain(longer[:SEEN], TEXTS[0], method=method))  # type: ignore[arg-type]
        with pytest.raises(DataError, match=rf"has 70 residues, the model sees {SEEN}"):
            model.explain(longer, TEXTS[0], method=method, long="error")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"window": 4}, RequestError, "window=4: an odd number"),
        ({"window": 0}, RequestError, "window=0: an odd number"),
        ({"window": -3}, RequestError, "window=-3: an odd number"),
        ({"stride": 0}, RequestError, "stride=0: 1 or more"),
        ({"method": "attention"}, ConfigError, "method='attention': allowed are 'occlusion', 'segments'"),
        ({"long": "window-mean"}, ConfigError, "long='window-mean': allowed are 'truncate', 'error'"),
        ({"text": " "}, DataError, "text 1 of 1 is empty"),
        ({"sequence": "MK7"}, DataError, "'7' at residue 3"),
        ({"sequence": "*"}, DataError, "sequence 1 of 1 is empty"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_model().explain(**{"sequence": SEQUENCE, "text": TEXTS[0], **arguments})
