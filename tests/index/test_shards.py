"""Parts of an index: which subindexes each holds, and that it answers as these do in the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from index_folders import unit_vectors, write_embeddings

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index
from protclip.index.manifest import IndexManifest, read_index_manifest
from protclip.index.shards import split_subindexes

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> str:
    """75 rows in 5 subindexes."""
    folder = tmp_path_factory.mktemp("index")
    embeddings = write_embeddings(folder / "embeddings", unit_vectors(75))
    build_from(read_embeddings(embeddings), str(folder / "index"), IndexConfig(shard_rows=15))
    return str(folder / "index")


def with_subindexes(index: str, rows: list[int]) -> IndexManifest:
    manifest = read_index_manifest(index)
    subindexes = tuple(dataclasses.replace(manifest.segments[0], rows=count) for count in rows)
    return dataclasses.replace(manifest, segments=subindexes)


@pytest.mark.parametrize(
    ("rows", "num_shards", "expected"),
    [
        ([10] * 6, 3, [[10, 10], [10, 10], [10, 10]]),
        ([10] * 5, 2, [[10, 10], [10, 10, 10]]),
        ([100, 10, 10, 90], 2, [[100], [10, 10, 90]]),
        ([1, 1, 1, 1000], 3, [[1, 1], [1], [1000]]),  # none is empty
        ([1000, 1, 1], 3, [[1000], [1], [1]]),
        ([5, 5], 1, [[5, 5]]),
    ],
)
def test_each_subindex_is_in_one_shard_in_its_order_and_shards_are_about_even(index, rows, num_shards, expected):
    shards = split_subindexes(with_subindexes(index, rows), num_shards)
    assert [number for shard in shards for number in shard] == list(range(len(rows)))
    assert [[rows[number] for number in shard] for shard in shards] == expected


def test_more_shards_than_subindexes_are_refused(index):
    with pytest.raises(ConfigError, match=r"6 shards are wanted, and the index has 5 subindexes.*shard_rows than 15"):
        split_subindexes(read_index_manifest(index), 6)


def test_a_part_has_the_rows_of_the_whole_under_their_numbers(index):
    whole, part = Index.load(index), Index.load(index, subindexes=range(2, 4))
    assert (len(whole), len(part)) == (75, 30)
    scores, rows = part.search(unit_vectors(4, seed=1), 30)
    assert sorted(rows[0]) == list(range(30, 60))
    all_scores, all_rows = whole.search(unit_vectors(4, seed=1), 75)
    inside = (all_rows >= 30) & (all_rows < 60)
    assert rows.tolist() == all_rows[inside].reshape(4, 30).tolist()
    assert scores.tolist() == all_scores[inside].reshape(4, 30).tolist()
    assert part.rows(rows[0]) == whole.rows(rows[0])
    np.testing.assert_array_equal(part.vectors(rows[0]), whole.vectors(rows[0]))
    names = [row["accession"] for row in whole.rows([29, 30, 59, 60])]
    assert [found.tolist() for found in part.find("accession", names)] == [[30, 59], [1, 2]]
    assert Index.load(index, subindexes=range(4, 5)).rows([74]) == whole.rows([74])


def test_the_files_of_a_part_are_verified_and_others_are_not_read(index, tmp_path):
    copy = tmp_path / "index"
    copy.mkdir()
    for path in Path(index).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    damaged = copy / "segment-00004.hnsw"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert len(Index.load(str(copy), subindexes=range(4))) == 60
    with pytest.raises(DataError, match=r"segment-00004\.hnsw"):
        Index.load(str(copy), subindexes=range(3, 5))
    with pytest.raises(DataError, match=r"segment-00004\.hnsw"):
        Index.load(str(copy))
