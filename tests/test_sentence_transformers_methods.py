"""sentence-transformers' evaluator takes a ProtCLIP as it is, and finds what our own measure of retrieval finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import random_sequences, random_texts, tiny_model

from protclip.errors import ConfigError, DataError
from protclip.model.dual_encoder import DualEncoder

pytestmark = pytest.mark.unit


@pytest.mark.slow
def test_information_retrieval_evaluator_runs_and_agrees_with_ranks_by_hand(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    model = tiny_model()
    texts, proteins = random_texts(12), random_sequences(30)
    evaluator = InformationRetrievalEvaluator(
        queries={f"q{i}": text for i, text in enumerate(texts)},
        corpus={f"p{i}": sequence for i, sequence in enumerate(proteins)},
        relevant_docs={f"q{i}": {f"p{i}"} for i in range(12)},
        corpus_chunk_size=7,
        batch_size=4,
        name="tiny",
        query_prompt_name="text",
        corpus_prompt_name="protein",
    )
    found = evaluator(model, output_path=str(tmp_path))
    cosines = model.embed_texts(texts) @ model.embed_proteins(proteins).T
    ranks = (cosines > np.diag(cosines)[:, None]).sum(1) + 1
    assert found["tiny_cosine_accuracy@10"] == pytest.approx((ranks <= 10).mean())
    assert found["tiny_cosine_mrr@10"] == pytest.approx(np.where(ranks <= 10, 1 / ranks, 0).mean())
    assert 0 < found["tiny_cosine_mrr@10"] < 1
    assert model.model_card_data.metrics == found
    model.save_pretrained(str(tmp_path / "model"), metrics=model.model_card_data.metrics)
    assert "| tiny_cosine_mrr@10 |" in (tmp_path / "model/README.md").read_text()


def test_encode_gives_what_the_embed_methods_do() -> None:
    model, sequences, texts = tiny_model(), random_sequences(6), random_texts(6)
    wanted = model.embed_proteins(sequences)
    assert np.array_equal(model.encode(sequences, "protein"), wanted)
    assert np.array_equal(model.encode(texts, prompt_name="text"), model.embed_texts(texts))
    for name in ("encode", "encode_query", "encode_document"):
        found = getattr(model, name)(
            sequences,
            prompt_name="protein",
            prompt=None,
            batch_size=2,
            show_progress_bar=False,
            output_value="sentence_embedding",
            precision="float32",
            convert_to_tensor=True,
            truncate_dim=None,
        )
        assert isinstance(found, torch.Tensor) and found.shape == (6, 24)
        assert np.abs(found.numpy() - wanted).max() <= 1e-6
    assert model.encode("MKT", "protein").shape == (24,)
    assert model.encode([], "text").shape == (0, 24)
    listed = model.encode(sequences, "protein", convert_to_numpy=False)
    assert isinstance(listed, list) and all(isinstance(one, torch.Tensor) for one in listed)
    assert model.encode("MKT", "protein", convert_to_numpy=False).shape == (24,)
    bare = model.encode(texts, "text", normalize_embeddings=False)
    assert np.array_equal(bare, model.embed_texts(texts, normalize=False))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "prompt_name=None: allowed are 'protein', 'text'"),
        ({"prompt_name": "query"}, "prompt_name='query': allowed are 'protein', 'text'"),
        ({"prompt_name": "text", "prompt": "query: "}, "prompt='query: ': allowed are None"),
        ({"prompt_name": "text", "precision": "int8"}, "precision='int8': allowed are 'float32'"),
        ({"prompt_name": "text", "output_value": "token_embeddings"}, "allowed are 'sentence_embedding'"),
        ({"prompt_name": "text", "truncate_dim": 25}, "dimensions=25: an embedding of this model has 24"),
        ({"prompt_name": "text", "batch_size": 0}, "batch_size=0: allowed are a whole number of items"),
        ({"prompt_name": "text", "long": "error"}, "encode has no argument 'long'"),
    ],
)
def test_what_encode_cannot_do_is_refused_by_name(settings: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny_model().encode(["binds ATP"], **settings)


def test_encode_refuses_what_is_no_str() -> None:
    with pytest.raises(DataError, match="text 2 of 2 is None"):
        tiny_model().encode(["binds ATP", None], "text")  # type: ignore[list-item]


def test_batch_size_bounds_the_tokens_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_model(), []
    encode = DualEncoder.encode_packed

    def recorded(self: DualEncoder, kind: Any, ids_T: torch.Tensor, packing: Any) -> torch.Tensor:
        sizes.append(len(ids_T))
        return encode(self, kind, ids_T, packing)

    monkeypatch.setattr(DualEncoder, "encode_packed", recorded)
    sequences = ["MKT"] * 1640  # of 5 tokens each; the longest input has 64
    for batch_size, wanted in ((None, 4095), (1, 60), (10, 640), (10**6, 4095)):
        sizes.clear()
        model.encode(sequences, "protein", batch_size=batch_size)
        assert max(sizes) == wanted


def test_similarity_is_a_matrix_of_arrays_and_tensors_that_orders_as_cosines_do() -> None:
    model = tiny_model()
    proteins, texts = model.embed_proteins(random_sequences(5)), model.embed_texts(random_texts(4))
    logits = model.similarity(proteins, texts)
    assert logits == pytest.approx(proteins @ texts.T / 0.07, rel=1e-5)
    assert np.array_equal(logits.argsort(1), (proteins @ texts.T).argsort(1))
    tensors = model.similarity(torch.from_numpy(texts), torch.from_numpy(proteins))
    assert isinstance(tensors, torch.Tensor)
    assert np.abs(tensors.numpy().T - logits).max() <= 1e-5
    assert model.similarity(torch.from_numpy(texts), proteins).shape == (4, 5)
    assert model.similarity(proteins[0], texts).shape == (1, 4)
    assert model.similarity(proteins[0], texts[0]).shape == (1, 1)
    assert model.similarity_fn_name == "cosine"
