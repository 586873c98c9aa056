"""Percentiles: how rarely a random question finds anything as near."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_folders import unit_vectors, write_embeddings
from tiny_model import random_sequences, tiny_model, write_protein_index

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError
from protclip.index import manifest as manifest_module
from protclip.index import recall
from protclip.index.background import percentiles
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index
from protclip.index.manifest import IndexManifest, read_index_manifest, write_index_manifest
from protclip.uniprot.entry import Entry
from protclip.uniprot.fasta import read_fasta

pytestmark = pytest.mark.unit


def build(folder: Path, vectors: np.ndarray, shard_rows: int = 10_000, **how: Any) -> IndexManifest:
    embeddings = read_embeddings(write_embeddings(folder.with_name(f"{folder.name}-e"), vectors))
    return build_from(embeddings, str(folder), IndexConfig(shard_rows=shard_rows, ef_search=20, max_stale=1.0), **how)


def best_of_others(vectors: np.ndarray) -> list[float]:
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(cosines, -1)
    return np.clip(np.sort(cosines.max(axis=1)), -1, 1).tolist()  # type: ignore[no-any-return]


def kolmogorov(shares: np.ndarray) -> float:
    """The largest distance of the shares, in %, from an even spread."""
    sorted_, steps = np.sort(shares) / 100, np.arange(len(shares) + 1) / len(shares)
    return float(max(np.abs(sorted_ - steps[1:]).max(), np.abs(sorted_ - steps[:-1]).max()))


def test_a_percentile_is_the_share_of_random_questions_whose_best_answer_scores_lower():
    best = [0.1, 0.2, 0.2, 0.7]
    scores = np.array([[0.05, 0.1, 0.15], [0.2, 0.69, 0.7000004], [0.71, 1, 1]], np.float32)
    expected = [[0, 12.5, 25], [50, 75, 87.5], [100, 100, 100]]
    assert percentiles(scores, best).tolist() == expected
    assert percentiles(np.float32(0.2), best) == 50
    assert percentiles(np.array([1.0000002], np.float32), [0.5, 1.0]).tolist() == [75]


@pytest.mark.parametrize("shard_rows", [1000, 70])
@pytest.mark.slow
def test_the_background_is_the_best_other_answer_of_each_row_whatever_the_subindexes(tmp_path, shard_rows):
    vectors = unit_vectors(300)
    vectors[7] = vectors[25]  # accessions with one sequence are one question, and none is its own answer
    manifest = build(tmp_path / "i", vectors, shard_rows)
    assert len(manifest.segments) == -(-300 // shard_rows) and list(manifest.background) == ["protein"]
    found = manifest.background["protein"]
    np.testing.assert_allclose(found, best_of_others(np.delete(vectors, 7, axis=0)), atol=1e-6)
    assert found == tuple(round(score, 6) for score in found) and found[-1] < 0.99
    index = Index.load(str(tmp_path / "i"))
    assert index.manifest.background == manifest.background
    scores = np.array([[found[150], -0.5]], np.float32)
    lower, same = (np.array(found) < found[150]).sum(), (np.array(found) == found[150]).sum()
    assert index.percentiles(scores, "protein").tolist() == [[pytest.approx(100 * (lower + same / 2) / 299), 0]]
    assert index.percentiles(scores, "text") is None


@pytest.mark.slow
def test_a_release_has_the_background_of_an_index_built_anew(tmp_path):
    first, second = unit_vectors(200), np.concatenate([unit_vectors(200)[20:], unit_vectors(30, seed=5)])
    build(tmp_path / "i0", first, 90)
    names = [f"P{i:05d}" for i in range(20, 230)]
    embeddings = read_embeddings(write_embeddings(tmp_path / "e1", second, accessions=names))
    config = IndexConfig(shard_rows=90, ef_search=20, max_stale=1.0)
    release = build_from(embeddings, str(tmp_path / "i1"), config, previous=str(tmp_path / "i0"))
    anew = build_from(embeddings, str(tmp_path / "new"), config)
    assert len(release.segments) == 4 and release.background == anew.background
    assert len(release.background["protein"]) == 210


def test_of_a_large_index_a_sample_of_the_rows_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(recall, "NUM_QUERIES", 100)
    vectors = unit_vectors(500)
    found = build(tmp_path / "i", vectors, 200).background["protein"]
    everything = best_of_others(vectors)
    assert 100 <= len(found) <= 102 and np.isin(np.round(found, 5), np.round(everything, 5)).mean() > 0.9


@pytest.mark.slow
def test_given_questions_are_the_background_of_their_kind_and_stand_in_for_rows_of_the_index(tmp_path):
    vectors = unit_vectors(150)
    texts, proteins, few = (
        read_embeddings(write_embeddings(tmp_path / name, unit_vectors(count, seed=seed), content=content))
        for name, count, seed, content in (
            ("texts", 40, 3, "text"), ("proteins", 30, 4, "protein"), ("few", 19, 5, "text"),
        )
    )  # fmt: skip
    both = build(tmp_path / "both", vectors, 60, queries=[texts, proteins])
    for kind, asked in (("text", texts), ("protein", proteins)):
        expected = np.sort((asked.vectors @ vectors.T).max(axis=1))
        np.testing.assert_allclose(both.background[kind], expected, atol=2e-6)
    assert set(both.recall) == {"inside", "outside", "text", "protein"}
    swapped = build_from(
        read_embeddings(str(tmp_path / "both-e")), str(tmp_path / "swapped"),
        IndexConfig(shard_rows=60, ef_search=20, max_stale=1.0), queries=[proteins, texts],
    )  # fmt: skip
    assert swapped == both
    assert set(build(tmp_path / "few-texts", vectors, queries=[few]).background) == {"protein"}
    with pytest.raises(ConfigError, match=r"texts and .*few both hold texts; give one folder of each kind"):
        build(tmp_path / "twice", vectors, queries=[texts, few])


def test_too_few_rows_have_no_background(tmp_path):
    assert build(tmp_path / "few", unit_vectors(19)).background == {}
    assert len(build(tmp_path / "enough", unit_vectors(20)).background["protein"]) == 20
    assert Index.load(str(tmp_path / "few")).percentiles(np.zeros(3, np.float32), "protein") is None


def test_an_index_of_before_there_was_a_background_loads_and_has_none(tmp_path):
    build(tmp_path / "i", unit_vectors(30))
    path = tmp_path / "i" / "manifest.json"
    stored = json.loads(path.read_text())
    del stored["background"]
    outside = ("kind", "schema_version", "software", "digest")
    stored["digest"] = manifest_module._digest({name: stored[name] for name in stored if name not in outside})
    path.write_text(json.dumps(stored))
    index = Index.load(str(tmp_path / "i"))
    assert index.percentiles(np.zeros(3, np.float32), "protein") is None and index.fingerprint == stored["digest"]


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ({"protein": [0.1] * 29 + [float("nan")]}, r"background.protein holds a score that is not from -1 to 1"),
        ({"protein": [0.1] * 29 + [1.1]}, r"background.protein holds a score that is not from -1 to 1"),
        ({"text": [0.1] * 29 + [0.0]}, r"background.text is not sorted upwards"),
        ({"text": [0.1] * 3}, r"background.text has 3 scores; 20 are needed at least"),
        ({"image": [0.1] * 30}, r"background.image is of no kind of question"),
        ({"protein": [0.1] * 29 + ["0.2"]}, r"background.protein.29 is '0.2'; a number is needed"),
        ({"protein": 0.5}, r"background.protein is 0.5; a list is needed"),
        ([0.5], r"background is list; an object is needed"),
    ],
)
def test_a_damaged_background_is_refused_by_name(tmp_path, background, message):
    manifest = build(tmp_path / "i", unit_vectors(30))
    described = json.loads((tmp_path / "i" / "manifest.json").read_text())["files"]
    write_index_manifest(str(tmp_path / "i"), replace(manifest, background=background), described)
    with pytest.raises(DataError, match=message):
        read_index_manifest(str(tmp_path / "i"))


def test_the_fingerprint_is_the_digest_and_tells_indexes_apart(tmp_path):
    vectors = unit_vectors(30)
    manifest = build(tmp_path / "i", vectors)
    index = Index.load(str(tmp_path / "i"))
    stored = json.loads((tmp_path / "i" / "manifest.json").read_text())
    assert index.fingerprint == stored["digest"] == manifest.digest and index.manifest == manifest
    assert build(tmp_path / "same", vectors).digest == manifest.digest
    assert build(tmp_path / "other", unit_vectors(30, seed=1)).digest != manifest.digest
    in_memory = Index(replace(manifest, digest=None), index.subindexes)
    assert len(in_memory.fingerprint) == 64 and in_memory.fingerprint != index.fingerprint


def check_spread(tmp_path: Path, sequences: list[str], num_questions: int) -> None:
    """The best answers of questions that are drawn as the index's rows were have evenly spread percentiles."""
    model = tiny_model()
    index = Index.load(write_protein_index(tmp_path, model, sequences[num_questions:]))
    scores, _ = index.search(model.embed_proteins(sequences[:num_questions]), 1)
    shares = index.percentiles(scores[:, 0], "protein")
    assert shares is not None and shares.shape == (num_questions,)
    # Beyond it once in 100 draws, of the questions and the background; and this draw is always the same.
    assert kolmogorov(shares) < 1.63 * np.sqrt(1 / num_questions + 1 / len(index))


def test_best_answers_of_random_proteins_have_evenly_spread_percentiles(tmp_path):
    check_spread(tmp_path, random_sequences(500, seed=8), 50)


@pytest.mark.slow
def test_best_answers_of_real_proteins_have_evenly_spread_percentiles(tmp_path, real_data):
    path = real_data / "uniprot" / "sequences_20000.fasta.gz"
    with gzip.open(path) as stream:
        sequences = [e.sequence for e in read_fasta(stream, str(path)) if isinstance(e, Entry)]
    chosen = np.random.default_rng(0).choice(len(sequences), 900, replace=False)
    check_spread(tmp_path, [sequences[i] for i in chosen], 100)
