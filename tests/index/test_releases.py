"""The next release of an index beside the same built anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_folders import unit_vectors, write_embeddings

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError
from protclip.index import recall, subindex
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.filters import parse_filter
from protclip.index.hnsw import HnswConfig
from protclip.index.index import Index
from protclip.index.manifest import IndexManifest

pytestmark = pytest.mark.unit
COUNT, DIMENSION = 2000, 24
CONFIG = IndexConfig(shard_rows=900, recall=0.95, graph=HnswConfig(m=8, ef_construction=60))
COMPACT = replace(CONFIG, graph_dimension=16)


def vectors(seed: int, count: int) -> np.ndarray:
    return unit_vectors(count, DIMENSION, seed=seed)


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    monkeypatch.setattr(recall, "NUM_QUERIES", 200)


class Releases:
    """A synthetic UniProt: each release changes 1 %, adds 2 %, removes 0.5 % and redescribes 1 %."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.vectors = dict(zip([f"P{i:06d}" for i in range(COUNT)], vectors(0, COUNT), strict=True))
        self.names: dict[str, str] = {}

    def write(self) -> str:
        """In another order and in other parts than before."""
        rng = np.random.default_rng(self.number)
        accessions = rng.permutation(sorted(self.vectors)).tolist()
        return write_embeddings(
            self.folder / f"e{self.number}",
            np.stack([self.vectors[accession] for accession in accessions]),
            accessions=accessions,
            parts=2 + self.number,
            columns={
                "name": [self.names.get(accession, f"Protein {accession}") for accession in accessions],
                "length": [100 + int(accession[1:]) % 400 for accession in accessions],
                "reviewed": [accession < "P001" for accession in accessions],
                "ec": [[f"1.{accession[-1]}"] for accession in accessions],
            },
        )

    def step(self) -> dict[str, list[str]]:
        self.number += 1
        rng = np.random.default_rng(100 + self.number)
        chosen = rng.permutation(sorted(self.vectors)).tolist()
        changed, removed, named = chosen[:20], chosen[20:30], chosen[30:50]
        for accession, vector in zip(changed, vectors(200 + self.number, 20), strict=True):
            self.vectors[accession] = vector
        for accession in removed:
            del self.vectors[accession]
        added = [f"Q{self.number}{i:05d}" for i in range(40)]
        self.vectors.update(zip(added, vectors(300 + self.number, 40), strict=True))
        self.names.update(dict.fromkeys(named, f"Renamed {self.number}"))
        return {"added": added, "changed": changed, "removed": removed, "named": named}


def build(folder: Path, embeddings: str, config: IndexConfig = CONFIG, previous: Path | None = None) -> IndexManifest:
    before = None if previous is None else str(previous)
    return build_from(read_embeddings(embeddings), str(folder), config, previous=before)


def answers(folder: Path, k: int = 20, **how: object) -> list[list[tuple[object, ...]]]:
    hits = Index.load(str(folder)).hits_of_each(vectors(999, 100), k, **how)  # type: ignore[arg-type]
    return [[(hit["accession"], hit["score"], hit["name"]) for hit in line] for line in hits]


def are_near(one: list[Any], two: list[Any], distance: float = 5e-5) -> bool:
    """Whether answers have the same scores but for the last digits, and those of equal scores in any order."""
    for line, other in zip(one, two, strict=True):
        scores, others = ([score for _, score, _ in its] for its in (line, other))
        names = {(name, rest): score for name, score, rest in line}
        known = {(name, rest): score for name, score, rest in other}
        assert scores == pytest.approx(others, abs=distance)
        for hit in names.keys() | known.keys():
            assert names.get(hit, scores[-1]) == pytest.approx(known.get(hit, scores[-1]), abs=distance)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, COMPACT], ids=["whole", "compact"])
def test_three_releases_answer_as_if_built_anew(tmp_path, monkeypatch, config):
    releases = Releases(tmp_path)
    build(tmp_path / "i0", releases.write(), config)
    for number in (1, 2, 3):
        what = releases.step()
        embeddings = releases.write()
        manifest = build(tmp_path / f"i{number}", embeddings, config, tmp_path / f"i{number - 1}")
        assert manifest.release == {
            "added": 40, "changed": 20, "removed": 10, "redescribed": 20, "compacted": False
        }  # fmt: skip
        assert manifest.count == len(releases.vectors) and len(manifest.segments) == 3 + number
        assert manifest.recall_at_10 is not None and manifest.recall_at_10 >= CONFIG.recall
        build(tmp_path / f"new{number}", embeddings, config)
        # Every bit of scores, every name. Of a compact index all but the last digits: its mean is of another sample.
        one, two = (answers(tmp_path / f"{name}{number}", exact=True) for name in ("i", "new"))
        assert one == two if config is CONFIG else are_near(one, two)
        old = Index.load(str(tmp_path / f"i{number}")).subindexes[:3]
        live = {name for one in old for name in one.metadata["accession"].filter(one.live).to_pylist()}
        assert not live & {*what["removed"], *what["changed"]}
    where = parse_filter("name contains 'Renamed'")
    one, two = (answers(tmp_path / name, where=where) for name in ("i3", "new3"))
    assert one == two if config is CONFIG else are_near(one, two)
    assert all(name.startswith("Renamed") for line in one for _, _, name in line)

    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)
    exact = answers(tmp_path / "new3", k=10, exact=True)
    found = answers(tmp_path / "i3", k=10)
    hits = sum(len({a for a, *_ in f} & {a for a, *_ in e}) for f, e in zip(found, exact, strict=True))
    assert hits / 1000 >= CONFIG.recall - 0.02  # of other queries: three standard deviations


@pytest.mark.slow
def test_graphs_are_taken_over_and_the_previous_index_is_left_as_it_was(tmp_path):
    releases = Releases(tmp_path)
    build(tmp_path / "i0", releases.write())
    before = {path.name: path.read_bytes() for path in (tmp_path / "i0").iterdir()}
    releases.step()
    build(tmp_path / "i1", releases.write(), previous=tmp_path / "i0")
    for i in range(3):
        name = f"segment-{i:05d}.hnsw"
        assert (tmp_path / "i1" / name).samefile(tmp_path / "i0" / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "i0").iterdir()} == before


@pytest.mark.slow
def test_a_release_that_changes_nothing_changes_no_answer(tmp_path):
    releases = Releases(tmp_path)
    build(tmp_path / "i0", releases.write())
    releases.number += 1
    manifest = build(tmp_path / "i1", releases.write(), previous=tmp_path / "i0")
    assert len(manifest.segments) == 3 and manifest.release is not None and manifest.release["redescribed"] == 0
    assert answers(tmp_path / "i0") == answers(tmp_path / "i1")


@pytest.mark.slow
def test_too_much_change_builds_the_same_files_as_no_previous_index(tmp_path):
    releases = Releases(tmp_path)
    build(tmp_path / "i0", releases.write())
    releases.step()
    embeddings = releases.write()
    manifest = build(tmp_path / "i1", embeddings, replace(CONFIG, max_stale=0.03), previous=tmp_path / "i0")
    assert manifest.release == {
        "added": 40, "changed": 20, "removed": 10, "redescribed": None, "compacted": True
    }  # fmt: skip
    build(tmp_path / "new", embeddings)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("segment-*")} for name in ("i1", "new")
    )
    assert one == two


@pytest.mark.slow
def test_a_release_without_a_subindex_of_the_first_leaves_it_out(tmp_path):
    first = vectors(0, 300)
    names = [f"P{i:04d}" for i in range(300)]
    build(tmp_path / "i0", write_embeddings(tmp_path / "e0", first, accessions=names), replace(CONFIG, shard_rows=100))
    rest = write_embeddings(tmp_path / "e1", first[100:], accessions=names[100:], parts=1)
    config = replace(CONFIG, shard_rows=100, max_stale=1.0)
    manifest = build(tmp_path / "i1", rest, config, previous=tmp_path / "i0")
    assert [one.name for one in manifest.segments] == ["segment-00001", "segment-00002"] and manifest.count == 200


def test_what_does_not_belong_to_the_previous_index_is_refused(tmp_path):
    embeddings = write_embeddings(tmp_path / "e", vectors(0, 100))
    build(tmp_path / "i0", embeddings)
    with pytest.raises(ConfigError, match="m=8"):
        build(tmp_path / "i1", embeddings, IndexConfig(), previous=tmp_path / "i0")
    with pytest.raises(ConfigError, match="is the previous index"):
        build(tmp_path / "i0", embeddings, previous=tmp_path / "i0")
    other = write_embeddings(tmp_path / "other", vectors(0, 10), fingerprint="a" * 64)
    with pytest.raises(IndexMismatchError, match="model"):
        build(tmp_path / "i1", other, previous=tmp_path / "i0")
    texts = write_embeddings(tmp_path / "texts", vectors(0, 10), content="text")
    with pytest.raises(IndexMismatchError, match="content"):
        build(tmp_path / "i1", texts, previous=tmp_path / "i0")
    path = tmp_path / "i0" / "segment-00000.hnsw"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DataError, match="SHA-256"):
        build(tmp_path / "i1", embeddings, previous=tmp_path / "i0")
    assert not (tmp_path / "i1" / "manifest.json").exists()
