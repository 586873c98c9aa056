"""Graphs over a few numbers of each vector, whose candidates are compared by the whole ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from index_folders import built_index, unit_vectors, write_embeddings

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError
from protclip.index import build as build_module
from protclip.index import index as index_module
from protclip.index import recall, subindex
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.exact import exact_search
from protclip.index.index import Index, memory_bytes
from protclip.index.rotation import choose_width, principal_components, project, sample_rows
from protclip.index.subindex import ROW_BYTES
from protclip.index.whole_vectors import inner_products, map_vectors, write_vectors
from ray_jobs.index.main import main

pytestmark = pytest.mark.unit
COUNT, DIMENSION = 3_000, 160


@pytest.fixture
def always_graphs(monkeypatch):
    """Small subindexes are answered by their graphs, and may be compact."""
    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    for module in (build_module, index_module):
        monkeypatch.setattr(module, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)
    monkeypatch.setattr(recall, "NUM_QUERIES", 300)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors that lie near a space of 20 dimensions."""
    rng = np.random.default_rng([7, seed])
    basis = np.random.default_rng(1).standard_normal((20, DIMENSION))
    vectors = rng.standard_normal((count, 20)) @ basis + 0.1 * rng.standard_normal((count, DIMENSION))
    unit: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.slow
@pytest.mark.usefixtures("always_graphs")
def test_the_fewest_numbers_are_chosen_and_the_wanted_recall_is_reached(tmp_path):
    vectors, queries = clustered(COUNT), clustered(200, seed=1)
    index = built_index(tmp_path, vectors, shard_rows=1_600)
    manifest = index.manifest
    assert manifest.graph_dimension == 64 and len(index.subindexes) == 2
    assert manifest.recall_at_10 is not None and manifest.recall_at_10 >= 0.99
    scores, rows = index.search(queries, 10)
    expected = exact_search(vectors, queries, 10)
    names = [[f"P{row:05d}" for row in line] for line in expected[1]]
    found = [[hit["accession"] for hit in hits] for hits in index.hits_of_each(queries, 10)]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, names, strict=True)]) > 0.98
    exact_scores, exact_rows = index.search(queries, 10, exact=True)
    np.testing.assert_allclose(exact_scores, expected[0], atol=5e-5)  # of two bytes a number
    same = rows == exact_rows
    assert same.mean() > 0.97
    np.testing.assert_allclose(scores[same], exact_scores[same], atol=1e-6)
    for i in (0, 17):  # company changes nothing
        alone = index.search(queries[i : i + 1], 10)
        assert np.array_equal(alone[0][0], scores[i]) and np.array_equal(alone[1][0], rows[i])
    filtered = index.hits_of_each(queries[:20], 5, where="reviewed")
    assert all(hit["reviewed"] for hits in filtered for hit in hits) and {len(hits) for hits in filtered} == {5}


@pytest.mark.usefixtures("always_graphs")
def test_where_no_few_numbers_will_do_graphs_hold_whole_vectors(tmp_path):
    vectors = unit_vectors(2_000, DIMENSION)  # as much lies in one direction as in another
    sample = vectors[sample_rows(2_000, 0)]
    assert choose_width(sample, principal_components(sample), 0.99) is None
    small = vectors[:150]
    assert not built_index(tmp_path / "small", small).manifest.is_compact  # too few for a sample
    assert built_index(tmp_path / "given", small, graph_dimension=32).manifest.graph_dimension == 32
    assert not built_index(tmp_path / "whole", small, graph_dimension=DIMENSION).manifest.is_compact
    with pytest.raises(ConfigError, match=f"graph_dimension={DIMENSION + 1}: the vectors have {DIMENSION} numbers"):
        built_index(tmp_path / "more", small, graph_dimension=DIMENSION + 1)


def test_whole_vectors_are_kept_finely_where_all_lie_close_together(tmp_path):
    rng = np.random.default_rng(0)
    spread = unit_vectors(200, DIMENSION)
    close = unit_vectors(1, DIMENSION) + 1e-4 * rng.standard_normal((200, DIMENSION)).astype(np.float32)
    for name, vectors in (("spread", spread), ("close", close), ("equal", close[:1].repeat(3, axis=0))):
        mean = vectors.mean(axis=0)
        write_vectors(str(tmp_path / name), vectors, mean)
        stored = map_vectors(str(tmp_path / name), mean, count=len(vectors))
        apart = np.abs(vectors - mean).max()
        assert stored.shape == vectors.shape
        np.testing.assert_allclose(stored[:], vectors, atol=apart / 60_000 + 1e-7)
        np.testing.assert_array_equal(stored[[[1, 2], [0, 1]]], stored[:][[[1, 2], [0, 1]]])
    assert len(np.unique(map_vectors(str(tmp_path / "close"), close.mean(axis=0), count=200)[:], axis=0)) == 200
    with pytest.raises(DataError, match="does not hold 201 vectors of dimension 160"):
        map_vectors(str(tmp_path / "close"), mean, count=201)


def test_inner_products_are_those_of_the_vectors_that_would_be_read(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 40)).astype(np.float32) + 3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_vectors(str(tmp_path / "stored"), vectors, vectors.mean(axis=0))
    stored = map_vectors(str(tmp_path / "stored"), vectors.mean(axis=0), count=50)
    rows = rng.integers(50, size=(7, 5))
    wanted = np.einsum("qcd,qd->qc", stored[rows], vectors[:7])
    np.testing.assert_allclose(inner_products(stored, rows, vectors[:7]), wanted, atol=1e-6)
    np.testing.assert_array_equal(inner_products(stored[:], rows, vectors[:7]), wanted)


def test_a_projection_is_of_unit_length_whatever_lies_in_it():
    vectors = np.eye(4, dtype=np.float32)
    few = project(vectors, vectors[:, :2].T)
    assert few.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]


def test_a_sample_is_spread_over_all_rows_and_the_same_for_any_parts():
    rows = sample_rows(1_000_000, 3)
    assert len(rows) == 20_000 and (np.diff(rows) > 0).all() and rows.max() < 1_000_000
    assert np.array_equal(rows, sample_rows(1_000_000, 3))
    assert len(np.unique(rows // 100_000)) == 10
    assert sample_rows(300, 0).tolist() == list(range(300))


@pytest.mark.slow
@pytest.mark.usefixtures("always_graphs")
def test_the_numbers_of_a_release_are_those_of_the_last(tmp_path):
    vectors = clustered(1_200)
    built_index(tmp_path, vectors, graph_dimension=48)
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    names = [f"P{row:05d}" for row in range(40, 1_200)]
    embeddings = read_embeddings(write_embeddings(tmp_path / "e1", vectors[40:], accessions=names))
    previous = str(tmp_path / "index")
    manifest = build_from(embeddings, str(tmp_path / "next"), IndexConfig(), previous=previous)
    assert manifest.graph_dimension == 48 and manifest.release is not None and not manifest.release["compacted"]
    for name in ("segment-00000.hnsw", "segment-00000.npy", "rotation.npy"):
        assert (tmp_path / "next" / name).read_bytes() == before[name]
    with pytest.raises(ConfigError, match="hold 48 numbers of a vector, and graph_dimension=32"):
        build_from(embeddings, str(tmp_path / "n2"), IndexConfig(graph_dimension=32), previous=previous)


@pytest.mark.usefixtures("always_graphs")
def test_memory_is_that_of_the_graphs_alone(tmp_path):
    index = built_index(tmp_path, clustered(400), graph_dimension=32)
    size = (tmp_path / "index" / "segment-00000.hnsw").stat().st_size
    assert memory_bytes(index.manifest) - 400 * ROW_BYTES == pytest.approx(size, rel=0.05)


@pytest.mark.usefixtures("always_graphs")
def test_a_rotation_of_another_index_is_refused(tmp_path):
    one = built_index(tmp_path / "one", clustered(150), graph_dimension=32)
    built_index(tmp_path / "other", clustered(150), graph_dimension=48)
    path = tmp_path / "one" / "index" / "rotation.npy"
    path.write_bytes((tmp_path / "other" / "index" / "rotation.npy").read_bytes())
    assert one.manifest.is_compact
    with pytest.raises(DataError, match=r"rotation\.npy"):
        Index.load(str(tmp_path / "one" / "index"))


@pytest.mark.slow
def test_a_dry_run_tells_what_an_index_takes_and_writes_nothing(tmp_path):
    vectors = clustered(12_000)
    vectors[6_000:] = vectors[0]
    embeddings = write_embeddings(tmp_path / "e", vectors)
    args = [embeddings, "--output", str(tmp_path / "i"), "--graph-dimension", "64"]
    done = CliRunner().invoke(main, [*args, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "index: 12,000 proteins of 160 numbers; 50.0% of a sample share the vector of another row" in done.output
    assert "graphs of 64 numbers a vector" in done.output and "core-hours" in done.output
    assert not (tmp_path / "i").exists()
    told = int(done.output.split("memory: ")[1].split(" bytes")[0])
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert "64 numbers of each in graphs" in done.output
    assert told == pytest.approx((tmp_path / "i" / "segment-00000.hnsw").stat().st_size / 12_000, rel=0.05)


@pytest.mark.parametrize("count", [1, 30])
def test_a_dry_run_tells_of_a_single_vector_too(tmp_path, count):
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(1, DIMENSION).repeat(count, axis=0), parts=1)
    done = CliRunner().invoke(main, [embeddings, "--output", str(tmp_path / "i"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert f"index: {count} proteins of 160 numbers" in done.output and "core-hours" in done.output


def test_a_dry_run_refuses_what_the_build_refuses(tmp_path):
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(5, DIMENSION))
    args = [embeddings, "--output", str(tmp_path / "i"), "--dry-run", "--graph-dimension", "161"]
    done = CliRunner().invoke(main, args)
    assert isinstance(done.exception, ConfigError) and "the vectors have 160 numbers" in str(done.exception)
    done = CliRunner().invoke(main, [*args[:-2], "--previous", embeddings])
    assert isinstance(done.exception, ConfigError) and "leave --previous out" in str(done.exception)
    hidden = write_embeddings(tmp_path / "h", unit_vectors(5, DIMENSION), settings={"layer": "hidden"})
    done = CliRunner().invoke(main, [hidden, "--output", str(tmp_path / "i"), "--dry-run"])
    assert isinstance(done.exception, DataError) and "hidden states" in str(done.exception)


def test_a_file_of_vectors_that_holds_objects_is_refused(tmp_path):
    kind = np.dtype([("scale", "|O"), ("numbers", "<i2", (DIMENSION,))])
    with (tmp_path / "stored").open("wb") as stream:
        head = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (3,)}
        np.lib.format.write_array_header_1_0(stream, head)
        stream.write(bytes(3 * kind.itemsize))
    with pytest.raises(DataError, match="and records of numbers are needed"):
        map_vectors(str(tmp_path / "stored"), np.zeros(DIMENSION, np.float32), count=3)


@pytest.mark.usefixtures("always_graphs")
def test_graphs_of_too_few_numbers_ask_for_more_of_them_and_what_they_miss_takes_memory(tmp_path):
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(1_500, DIMENSION), parts=1)
    args = [embeddings, "--output", str(tmp_path / "i"), "--graph-dimension", "1", "--ef-search", "12"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert "build with a larger --graph-dimension, --m or --ef-construction." in done.output
    manifest = Index.load(str(tmp_path / "i")).manifest
    (record,) = manifest.segments
    all_found = replace(manifest, segments=(replace(record, unreached=0),))
    assert record.unreached > 100
    assert memory_bytes(manifest) == memory_bytes(all_found) + 4 * DIMENSION * record.unreached
