"""Scores of pairs, residues, and proteins longer than the model sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts, tiny_model

from protclip.embedding import ProtCLIP
from protclip.errors import ConfigError, DataError

pytestmark = pytest.mark.unit

SEEN = 62  # residues that the tiny model sees


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
