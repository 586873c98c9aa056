"""Damaged index folders: each is refused with a clear error, or answers as before; none ends the process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_folders import FINGERPRINT, unit_vectors, write_embeddings

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ProtclipError
from protclip.index import manifest as manifest_module
from protclip.index import recall, subindex
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.filters import parse_filter
from protclip.index.index import Index

QUERIES = unit_vectors(5, 12, seed=9)


@pytest.fixture(params=[0, 6], ids=["whole", "compact"])
def folders(request, tmp_path, monkeypatch):
    """An index with a release, and three others: of another dimension, of another model, of other vectors."""
    monkeypatch.setattr(recall, "NUM_QUERIES", 10)
    # Graphs are loaded and searched whatever the size.
    monkeypatch.setattr(subindex, "EXACT_ROWS", 0)
    monkeypatch.setattr(subindex, "GRAPH_COST", 0)
    config = IndexConfig(shard_rows=30, ef_search=40, graph_dimension=request.param)
    made = {}
    for name, dimension, seed, fingerprint in (
        ("first", 12, 0, FINGERPRINT),
        ("narrow", 8, 0, FINGERPRINT),
        ("model", 12, 0, "a" * 64),
        ("vectors", 12, 5, FINGERPRINT),
    ):
        vectors = unit_vectors(60, dimension, seed=seed)
        embeddings = read_embeddings(write_embeddings(tmp_path / f"e-{name}", vectors, fingerprint=fingerprint))
        build_from(embeddings, str(tmp_path / name), config)
        made[name] = tmp_path / name
    release = np.concatenate([unit_vectors(60, 12)[2:], unit_vectors(3, 12, seed=3)])
    names = [f"P{i:05d}" for i in range(2, 63)]
    embeddings = read_embeddings(write_embeddings(tmp_path / "e2", release, accessions=names))
    build_from(embeddings, str(tmp_path / "good"), config, previous=str(made["first"]))
    made["good"] = tmp_path / "good"
    return made


def answers(folder: Path) -> list[Any]:
    index = Index.load(str(folder), expect_fingerprint=FINGERPRINT)
    where = parse_filter("reviewed and length < 150")
    exact = index.hits_of_each(QUERIES, 7, exact=True)
    return [index.manifest, index.hits_of_each(QUERIES, 7), index.hits_of_each(QUERIES, 7, where=where), exact]


def flip(rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def set_bytes(rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    content[start : start + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(0, 9)))
    path.write_bytes(content)


def cut(rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def grow(rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 50))))


def remove(_rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    path.unlink()


def swap(rng: np.random.Generator, path: Path, others: dict[str, Path]) -> None:
    """Another index's file of that name, or another subindex's."""
    there = [folder / path.name for folder in others.values() if (folder / path.name).exists()]
    there += [other for other in path.parent.glob(f"*{path.suffix}") if other != path]
    shutil.copy(there[rng.integers(len(there))], path)


def edit(rng: np.random.Generator, path: Path, others: dict[str, Path]) -> None:
    """A field of the manifest with another value: of another manifest, or none that fits."""
    path = path.parent / "manifest.json"
    manifest = json.loads(path.read_text())
    donor = json.loads((list(others.values())[rng.integers(len(others))] / "manifest.json").read_text())
    name = sorted(manifest)[rng.integers(len(manifest))]
    odd = [None, -1, 0, 10**9, "cosine", "l2", [], {}, 1.5, True, donor.get(name)]
    manifest[name] = odd[rng.integers(len(odd))]
    path.write_text(json.dumps(manifest))


def forge(rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    """The dimension or a number of rows altered, and the digest made to fit."""
    path = path.parent / "manifest.json"
    manifest = json.loads(path.read_text())
    kind = rng.integers(3)
    if kind == 0:
        manifest["dimension"] += int(rng.integers(-11, 12)) or 1
    elif kind == 1:
        manifest["segments"][0]["rows"] += int(rng.integers(1, 9))
    else:
        manifest["model_fingerprint"] = "a" * 64
    body = {key: value for key, value in manifest.items() if key not in _UNDIGESTED}
    manifest["digest"] = manifest_module._digest(body)
    path.write_text(json.dumps(manifest))


def rewrite(rng: np.random.Generator, path: Path, _others: dict[str, Path]) -> None:
    """The same JSON in other words."""
    path = path.parent / "manifest.json"
    manifest = json.loads(path.read_text())
    keys = rng.permutation(sorted(manifest)).tolist()
    path.write_text(json.dumps({key: manifest[key] for key in keys}, indent=int(rng.integers(0, 5)) or None) + " \n")


_UNDIGESTED = ("kind", "schema_version", "software", "digest")
MUTATIONS: tuple[Callable[..., None], ...] = (flip, set_bytes, cut, grow, remove, swap, edit, forge, rewrite)


def run(folders: dict[str, Path], count: int, seed: int) -> Counter[str]:
    """Mutate so many times; says how each kind ended."""
    rng = np.random.default_rng(seed)
    good = folders.pop("good")
    expected = answers(good)
    names = sorted(path.name for path in good.iterdir())
    damaged = good.parent / "damaged"
    shutil.copytree(good, damaged)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        mutate = MUTATIONS[rng.integers(len(MUTATIONS))]
        # The manifest as often as all others together.
        name = "manifest.json" if rng.random() < 0.5 else names[rng.integers(len(names))]
        mutate(rng, damaged / name, folders)
        try:
            same = answers(damaged) == expected
            assert same, f"{mutate.__name__} of {name}: a wrong answer, seed {seed}"
            outcomes[f"{mutate.__name__}: the same answers"] += 1
        except ProtclipError as error:
            assert str(error)
            outcomes[f"{mutate.__name__}: refused"] += 1
        for path in good.iterdir():
            shutil.copy(path, damaged / path.name)
    return outcomes


@pytest.mark.slow
@pytest.mark.unit
def test_damaged_indexes_are_refused_or_answer_as_before(folders):
    outcomes = run(folders, 450, seed=0)
    assert outcomes["rewrite: the same answers"] > 20 and not outcomes["rewrite: refused"]
    for kind in ("flip", "cut", "grow", "remove", "swap", "edit", "forge"):
        assert outcomes[f"{kind}: refused"] > 10
    for kind in ("cut", "grow", "remove", "forge"):
        assert not outcomes[f"{kind}: the same answers"], kind


@pytest.mark.prove
def test_ten_thousand_damaged_indexes_are_refused_or_answer_as_before(folders):
    outcomes = run(folders, 10_000, seed=1)
    print(json.dumps(outcomes, indent=1, sort_keys=True))
    assert outcomes.total() == 10_000


def damaged_with_checksums(index: Path, *, seed: int, count: int, ending: str) -> Counter[str]:
    """Run damaged_graphs.py; a process that ends by a signal fails the test, and says at which damage."""
    script = Path(__file__).with_name("damaged_graphs.py")
    command = [sys.executable, str(script), str(index), str(seed), str(count), ending]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr.splitlines()[-12:])
    return Counter(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.unit
@pytest.mark.parametrize(
    ("folders", "ending", "kinds"),
    [
        (0, ".hnsw", ("cut", "grow", "head", "upper")),
        (6, ".hnsw", ("cut", "grow", "head", "upper")),
        (0, ".parquet", ("bytes",)),
        (6, ".npy", ("bytes",)),
    ],
    indirect=["folders"],
)
def test_damage_under_a_checksum_that_fits_never_ends_the_process(folders, ending, kinds):
    outcomes = damaged_with_checksums(folders["good"], seed=0, count=300, ending=ending)
    for kind in kinds:
        assert outcomes[f"{kind}: refused"] > 5, outcomes
    assert not outcomes["cut: answered"] and not outcomes["grow: answered"]


@pytest.mark.prove
@pytest.mark.parametrize(
    ("folders", "ending"),
    [(0, ".hnsw"), (0, ".parquet"), (6, ".hnsw"), (6, ".parquet"), (6, ".npy")],
    indirect=["folders"],
)
def test_ten_thousand_damages_under_checksums_that_fit_never_end_the_process(folders, ending):
    outcomes = damaged_with_checksums(folders["good"], seed=1, count=10_000, ending=ending)
    print(json.dumps(outcomes, indent=1, sort_keys=True))
    assert outcomes.total() == 10_000
