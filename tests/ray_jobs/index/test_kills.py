"""protclip index under SIGKILL: given again, it ends with the files of a build that nothing disturbed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from index_folders import unit_vectors, write_embeddings
from kills import COMMAND, names_below, rehearse_kills
from s3_server import place, s3  # noqa: F401

from protclip import files
from protclip.embeddings.reading import read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index

NUM_SUBINDEXES = 6
NUM_UNITS = 3 * NUM_SUBINDEXES
"""Each subindex is built, sampled and measured."""


def check(
    tmp_path: Path,
    there: str,
    *,
    rows: int,
    moments: Sequence[int],
    victims: Sequence[str],
    seed: int,
    graph_dimension: int,
) -> None:
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(rows, 64))
    config = IndexConfig(shard_rows=rows // NUM_SUBINDEXES, recall=0.95, graph_dimension=graph_dimension)
    settings = [
        ("--shard-rows", config.shard_rows),
        ("--recall", config.recall),
        ("--graph-dimension", graph_dimension),
    ]
    folder = files.join(there, "killed")
    rehearse_kills(
        [*COMMAND, "index", embeddings, *(str(word) for setting in settings for word in setting)],
        folder,
        lambda calm: build_from(read_embeddings(embeddings), calm, config),
        calm=tmp_path / "calm",
        counted=".work/*/*/segment-*.json",
        moments=moments,
        victims=victims,
        seed=seed,
    )
    # Compact: the vectors beside each graph, and the rotation.
    expected = 3 * NUM_SUBINDEXES + 2 if graph_dimension else 2 * NUM_SUBINDEXES + 1
    assert len(names_below(folder)) == expected
    assert len(Index.load(folder)) == rows


@pytest.mark.ray
@pytest.mark.parametrize("place", [pytest.param("local", marks=pytest.mark.prove), "s3"], indirect=True)
def test_a_killed_build_given_again_ends_with_the_files_of_an_undisturbed_one(
    tmp_path: Path,
    place: str,  # noqa: F811
) -> None:
    check(tmp_path, place, rows=1200, moments=[4], victims=["run"], seed=0, graph_dimension=32)


@pytest.mark.prove
@pytest.mark.parametrize("graph_dimension", [0, 32])
def test_ten_kills_of_builds_drivers_nodes_and_tasks_lose_and_change_nothing(
    tmp_path: Path, graph_dimension: int
) -> None:
    moments = sorted(random.Random(0).sample(range(1, NUM_UNITS), 10))
    check(
        tmp_path,
        str(tmp_path),
        rows=60_000,
        moments=moments,
        victims=["worker", "run", "driver", "node", "run"] * 2,
        seed=0,
        graph_dimension=graph_dimension,
    )
