from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner, Result
from index_folders import unit_vectors, write_embeddings

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.external import open_vectors
from protclip.index.index import Index
from ray_jobs import pipelines
from ray_jobs.index import main as job
from ray_jobs.index.main import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_subindexes_built_on_ray_are_those_built_here_and_the_next_release_follows(tmp_path):
    vectors = unit_vectors(160)
    embeddings = write_embeddings(tmp_path / "e", vectors)
    texts = write_embeddings(tmp_path / "t", unit_vectors(30, seed=2), content="text")
    result = run(embeddings, "--output", tmp_path / "i", "--shard-rows", 60, "--recall", 0.9, "--queries", texts)
    assert result.exit_code == 0, result.output
    assert "inside queries (160): recall@10" in result.output
    assert "random protein questions (160): the best answer scores 0." in result.output
    assert "random text questions (30): the best answer scores 0." in result.output
    assert "160 protein vectors of dimension 16, subindexes: 3, ef_search" in result.output
    config = IndexConfig(shard_rows=60, recall=0.9)
    build_from(read_embeddings(embeddings), str(tmp_path / "here"), config, queries=[read_embeddings(texts)])
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("i", "here"))
    assert one == two and len(one) == 7

    vectors = np.concatenate([vectors[5:], unit_vectors(3, seed=9)])
    names = [f"P{i:05d}" for i in range(5, 160)] + ["Q1", "Q2", "Q3"]
    new = write_embeddings(tmp_path / "e2", vectors, accessions=names)
    options = ("--shard-rows", 60, "--recall", 0.9, "--output", tmp_path / "i2")
    result = run(new, "--previous", tmp_path / "i", *options)
    assert result.exit_code == 0, result.output
    assert "added 3, changed 0, removed 5" in result.output
    assert Index.load(str(tmp_path / "i2")).hits(vectors[-1], 1)[0]["accession"] == "Q3"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_another_tools_vectors_are_indexed_on_ray_as_here(tmp_path):
    np.save(tmp_path / "v.npy", 3 * unit_vectors(100))
    (tmp_path / "ids.txt").write_text("".join(f"P{i}\n" for i in range(100)))
    path, ids = str(tmp_path / "v.npy"), str(tmp_path / "ids.txt")
    options = ("--ids", ids, "--shard-rows", 40, "--ef-search", 20)
    result = run(path, "--model", "esm2", "--output", tmp_path / "i", *options)
    assert result.exit_code == 0, result.exception
    build_from(open_vectors(path, "esm2", ids=ids), str(tmp_path / "here"), IndexConfig(shard_rows=40, ef_search=20))
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("i", "here"))
    assert one == two and len(one) == 7


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_built_on_ray_is_one_clear_error(tmp_path, monkeypatch):
    embeddings = write_embeddings(tmp_path / "e", np.full((3, 16), np.nan, np.float32))
    result = run(embeddings, "--output", tmp_path / "i", "--shard-rows", 2)
    assert isinstance(result.exception, DataError) and "row 0" in str(result.exception)
    monkeypatch.setattr(pipelines, "largest_memory", lambda: 1 << 20)
    embeddings = write_embeddings(tmp_path / "e2", unit_vectors(9))
    result = run(embeddings, "--output", tmp_path / "j", "--shard-rows", 5)
    assert isinstance(result.exception, ConfigError) and "--shard-rows" in str(result.exception)


@pytest.mark.unit
def test_a_single_subindex_needs_no_ray_unless_it_is_large(tmp_path, monkeypatch):
    def connect():
        raise ConfigError("Ray was asked for")

    monkeypatch.setattr(pipelines, "connect", connect)
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(9))
    result = run(embeddings, "--output", tmp_path / "i")
    assert result.exit_code == 0, result.output
    monkeypatch.setattr(job, "SMALL_BYTES", 1 << 20)
    result = run(embeddings, "--output", tmp_path / "j")
    assert "Ray was asked for" in str(result.exception)


@pytest.mark.unit
def test_embeddings_of_nothing_are_one_clear_error(tmp_path):
    embeddings = write_embeddings(tmp_path / "e", np.empty((0, 16), np.float32), parts=1)
    result = run(embeddings, "--output", tmp_path / "i")
    assert isinstance(result.exception, DataError) and "no embeddings" in str(result.exception)


@pytest.mark.unit
def test_a_folder_without_manifest_is_one_clear_error(tmp_path):
    result = CliRunner().invoke(main, [str(tmp_path), "--output", str(tmp_path / "i")])
    assert isinstance(result.exception, DataError) and "manifest.json" in str(result.exception)


@pytest.mark.unit
@pytest.mark.parametrize("setting", [("--m", 1), ("--recall", 1.5), ("--ef-search", 0), ("--shard-rows", 0)])
def test_a_setting_out_of_range_is_one_clear_error(tmp_path, setting):
    result = run(tmp_path, "--output", tmp_path / "i", *setting)
    assert isinstance(result.exception, ConfigError) and "must be at" in str(result.exception)
