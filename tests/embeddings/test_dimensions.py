"""Embeddings cut to fewer dimensions: what is written, what is said, and what they are not mixed with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import random_sequences, random_texts, tiny_model

from protclip.config import GC_ALONE
from protclip.embeddings import embed as stage
from protclip.embeddings.embed import embed
from protclip.embeddings.reading import read_embeddings
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError
from protclip.manifest import read_manifest

pytestmark = pytest.mark.unit
SEQUENCES, TEXTS = random_sequences(7), random_texts(5)
MODEL = tiny_model(objectives=replace(GC_ALONE, gc_prefixes=(8, 24)))


class KilledError(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that was trained at 8 and 24 dimensions, sequences, and texts."""
    folder = tmp_path_factory.mktemp("dimensions")
    MODEL.save_pretrained(str(folder / "model"))
    (folder / "some.fasta").write_text("".join(f">A{i}\n{sequence}\n" for i, sequence in enumerate(SEQUENCES)))
    (folder / "some.txt").write_text("\n".join(TEXTS))
    return folder


def config(folder: Path, output: Path, inputs: str = "some.fasta", **settings: Any) -> EmbedConfig:
    paths = {"inputs": (str(folder / inputs),), "checkpoint": str(folder / "model"), "output": str(output)}
    return EmbedConfig(**{**paths, "dtype": "float32", **settings})


@pytest.mark.parametrize("inputs", ["some.fasta", "some.txt"])
@pytest.mark.parametrize("form", ["parquet", "npy"])
def test_vectors_are_the_first_numbers_of_unit_length(folder: Path, tmp_path: Path, inputs: str, form: str) -> None:
    manifest = embed(config(folder, tmp_path / "out", inputs, dimensions=8, format=form))
    assert (manifest["dimension"], manifest["settings"]["dimensions"]) == (8, 8)
    whole = MODEL.embed_proteins(SEQUENCES) if inputs == "some.fasta" else MODEL.embed_texts(TEXTS)
    wanted = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    found = read_embeddings(str(tmp_path / "out"))
    assert found.dimension == 8
    np.testing.assert_allclose(found.vectors, wanted, atol=1e-6)


def test_whole_embeddings_say_nothing_of_dimensions(folder: Path, tmp_path: Path) -> None:
    manifest = embed(config(folder, tmp_path / "out"))
    assert manifest["dimension"] == 24
    assert "dimensions" not in manifest["settings"]


@pytest.mark.parametrize(("dimensions", "told"), [(8, False), (24, False), (7, True)])
def test_a_width_that_was_not_trained_is_told_in_one_line(
    folder: Path, tmp_path: Path, dimensions: int, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(config(folder, tmp_path / "out", dimensions=dimensions))
    lines = [line for line in capsys.readouterr().err.splitlines() if "trained for" in line]
    assert len(lines) == told
    assert all("trained for embeddings of 8, 24 dimensions, and not to be cut to 7" in line for line in lines)


def test_more_dimensions_than_the_model_has_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--dimensions 25: an embedding of this model has 24"):
        embed(config(folder, tmp_path / "out", dimensions=25))
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_goes_on_with_the_same_dimensions_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = config(folder, tmp_path / "out", dimensions=8, part_rows=3)

    def kill(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(stage._Embedding, "commit", kill)
        embed(begun)
    for other in (None, 24):
        with pytest.raises(ConfigError, match=rf"settings\.dimensions: 8 there, {other} here"):
            embed(replace(begun, dimensions=other))
    assert embed(begun)["dimension"] == 8


@pytest.mark.parametrize(("before", "now"), [(8, None), (None, 8), (8, 24)])
def test_previous_vectors_of_other_dimensions_are_refused(
    folder: Path, tmp_path: Path, before: int | None, now: int | None
) -> None:
    embed(config(folder, tmp_path / "before", dimensions=before))
    again = config(folder, tmp_path / "now", dimensions=now, previous=str(tmp_path / "before"))
    with pytest.raises(ConfigError, match=f"dimensions: {before} there, {now} here"):
        embed(again)


def test_previous_vectors_of_the_same_dimensions_are_taken_over(folder: Path, tmp_path: Path) -> None:
    embed(config(folder, tmp_path / "before", dimensions=8))
    embed(config(folder, tmp_path / "now", dimensions=8, previous=str(tmp_path / "before")))
    assert read_manifest(str(tmp_path / "now"), "embeddings")["counts"]["reused"] == len(SEQUENCES)
    found = [read_embeddings(str(tmp_path / name)).vectors for name in ("before", "now")]
    assert np.array_equal(*found)


def test_previous_hidden_states_are_no_embeddings(folder: Path, tmp_path: Path) -> None:
    embed(config(folder, tmp_path / "before", layer="hidden"))
    with pytest.raises(ConfigError, match="layer: hidden there, None here"):
        embed(config(folder, tmp_path / "now", previous=str(tmp_path / "before")))
