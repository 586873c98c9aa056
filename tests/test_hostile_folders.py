"""Folders altered on purpose, their manifests with them: each is refused in one line, or answers as before."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_folders import unit_vectors, write_embeddings
from pairs_folders import row as pairs_row
from pairs_folders import write_pairs
from tiny_model import tiny_model

from protclip.commands.stats import format_statistics
from protclip.embeddings.reading import read_embeddings
from protclip.errors import DataError, ProtclipError
from protclip.index import manifest as index_manifest
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index
from protclip.manifest import describe, path_inside, read_manifest, write_manifest
from protclip.model.record import read_checkpoint_fingerprint
from protclip.protanno.shards import read_pairs, read_row_group
from protclip.protanno.statistics import pairs_statistics
from protclip.trained_model import ProtCLIP
from protclip.uniprot.entry import Entry

DEEP = json.loads("[" * 200 + "]" * 200)
VALUES = (None, [], {}, -1, 0, 10**30, float("inf"), float("nan"), "x", "../x", True, 1.5, DEEP)
DELETED = object()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished folder with one file."""
    made = tmp_path / "folder"
    made.mkdir()
    (made / "a").write_text("hello")
    write_manifest(str(made), "pairs", ["a"])
    return made


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.unit
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "/dev/zero",
        "a/../../x",
        "",
        ".",
        "..",
        "~root/x",
        "x::file:///etc/passwd",
        "s3://b/x",
        "a\0b",
        "a\nb",
        "a/b/c",
        "memory://x",
        "a\\b",
    ],
)
@pytest.mark.parametrize("verify", [False, True])
def test_a_manifest_names_files_of_its_own_folder_alone(folder: Path, name: str, verify: bool) -> None:
    (folder.parent / "x").write_text("hello")
    edit(folder, lambda manifest: manifest["files"].update({name: manifest["files"]["a"]}))
    with pytest.raises(DataError, match="as one of its files; allowed are letters"):
        read_manifest(str(folder), "pairs", verify=verify)


@pytest.mark.unit
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_is_no_regular_file_of_the_folder_is_not_read(folder: Path, scheme: str) -> None:
    (folder.parent / "x").write_text("hello")
    target = folder / "a"
    for make, message in (
        (lambda: target.symlink_to("../x"), "outside of its folder"),
        (lambda: target.symlink_to("/etc/passwd"), "outside of its folder"),
        (lambda: target.symlink_to("/dev/zero"), "outside of its folder"),
        (lambda: os.mkfifo(target), "is no regular file"),
        (target.mkdir, "is no regular file"),
    ):
        target.rmdir() if target.is_dir() else target.unlink()
        make()
        edit(folder, lambda manifest: manifest["files"]["a"].update(bytes=target.stat().st_size))
        with pytest.raises(DataError, match=message):
            read_manifest(f"{scheme}{folder}", "pairs", verify=True)


@pytest.mark.unit
def test_a_link_within_the_folder_and_a_link_to_it_are_as_good_as_files(folder: Path) -> None:
    (folder / "b").write_text("hello")
    (folder / "a").unlink()
    (folder / "a").symlink_to("b")
    (folder.parent / "other").symlink_to(folder)
    assert read_manifest(str(folder.parent / "other"), "pairs", verify=True)
    assert path_inside(str(folder), "sub/a") == f"{folder}/sub/a"


@pytest.mark.unit
def test_a_pipe_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is no regular file"):
        read_manifest(str(tmp_path / "pipe"), "pairs")


@pytest.mark.unit
def test_a_manifest_that_is_no_regular_file_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir):
        path.rmdir() if path.is_dir() else path.unlink()
        make()
        with pytest.raises(DataError, match="is no regular file"):
            read_manifest(str(folder), "pairs")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "is not JSON"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 levels"),
        ('{"kind": "pairs", "kind": "pairs"}', "the key 'kind' comes twice"),
        ("[]", "is not a manifest"),
        ("{", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        ('{"kind": "pairs", "schema_version": 1}', "files: the whole is None; an object is needed"),
        ('{"kind": "pairs", "schema_version": 1, "files": {"a": {"bytes": 1e400}}}', "a.bytes is inf"),
        ('{"kind": "pairs", "schema_version": 1, "files": {"a": {"bytes": -5}}}', "a.bytes is -5"),
        ('{"kind": "pairs", "schema_version": 1, "files": {"a": []}}', r"a is \[\]; an object"),
        (f'{{"kind": {"9" * 5000}}}', "is not JSON"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_one_clear_error(folder: Path, text: str | bytes, message: str) -> None:
    (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_manifest(str(folder), "pairs")


def make_pairs(folder: Path) -> None:
    entries = [
        Entry(accession=f"P{i:05d}", sequence="MKTAYIAK" * (i + 1), name=f"Protein {i}", function="Binds ATP.")
        for i in range(6)
    ]
    rows = [pairs_row(entry) for entry in entries]
    write_pairs(folder, {"train-00000-of-00001": rows[:4], "valid-00000-of-00001": rows[4:]})
    edit(folder, lambda manifest: manifest.update(settings={"seed": 0, "sampling": {"draw": "once", "dataset": "S"}}))


def pairs_answers(folder: Path) -> Any:
    assert format_statistics(pairs_statistics(str(folder)), "pairs")
    pairs = read_pairs(str(folder))
    groups = [group for split in ("train", "valid") for group in pairs.row_groups(split)]
    return [pairs.draws_each_epoch, *(read_row_group(group).to_pylist() for group in groups)]


def make_embeddings(folder: Path) -> None:
    write_embeddings(folder, unit_vectors(20, 8), settings={"long": "truncate"}, counts={"truncated": 0})


def embeddings_answers(folder: Path) -> Any:
    embeddings = read_embeddings(str(folder))
    found = [embeddings.vectors.tolist(), embeddings.ids.tolist(), embeddings.metadata.to_pylist()]
    return [embeddings.content, embeddings.dimension, len(embeddings), *found]


def make_index(folder: Path) -> None:
    embeddings = read_embeddings(write_embeddings(folder.parent / "embeddings", unit_vectors(40, 8)))
    build_from(embeddings, str(folder), IndexConfig(shard_rows=20, ef_search=40))


def index_answers(folder: Path) -> Any:
    return Index.load(str(folder)).hits_of_each(unit_vectors(3, 8, seed=1), 5)


def make_checkpoint(folder: Path) -> None:
    tiny_model().save_pretrained(str(folder), max_shard_bytes=8000, metrics={"valid": {"loss": 1.0}})


def checkpoint_answers(folder: Path) -> Any:
    model = ProtCLIP.from_pretrained(str(folder))
    assert read_checkpoint_fingerprint(str(folder)) == model.fingerprint
    vectors = [model.embed_proteins(["MKTAYIAK"]).tolist(), model.embed_texts(["binds ATP"]).tolist()]
    return [model.fingerprint, *vectors]


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "pairs": (make_pairs, pairs_answers),
    "embeddings": (make_embeddings, embeddings_answers),
    "index": (make_index, index_answers),
    "checkpoint": (make_checkpoint, checkpoint_answers),
}


def places(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a JSON value; of long vocabularies a few."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    for key, inner in items if len(items) < 40 else items[::10]:
        yield (*so_far, key)
        yield from places(inner, (*so_far, key))


def mutated(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    result = copy.deepcopy(value)
    holder = result
    for key in place[:-1]:
        holder = holder[key]
    if new is DELETED:
        del holder[place[-1]]
    else:
        holder[place[-1]] = new
    return result


def rehash(folder: Path, name: str | None = None) -> None:
    """Make the manifest fit: the checksum of a file, and an index's digest of its manifest."""

    def change(manifest: dict[str, Any]) -> None:
        if name is not None:
            manifest["files"][name] = describe(str(folder / name))
        if "digest" in manifest:
            body = {k: v for k, v in manifest.items() if k not in ("kind", "schema_version", "software", "digest")}
            manifest["digest"] = index_manifest._digest(body)

    edit(folder, change)


def run(kind: str, folder: Path, *, count: int | None, seed: int) -> Counter[str]:
    """Mutate each value of each JSON file, or so many of them, and say how loading ended."""
    make, answers = KINDS[kind]
    make(folder)
    expected = answers(folder)
    cases = [
        (path.relative_to(folder), place, new)
        for path in sorted(folder.rglob("*.json"))
        for place in places(json.loads(path.read_text()))
        for new in (*VALUES, DELETED)
    ]
    if count is not None:
        chosen = np.random.default_rng(seed).choice(len(cases), min(count, len(cases)), replace=False)
        cases = [cases[i] for i in chosen]
    outcomes: Counter[str] = Counter()
    for name, place, new in cases:
        path = folder / name
        before, manifest = path.read_bytes(), (folder / "manifest.json").read_bytes()
        path.write_text(json.dumps(mutated(json.loads(before), place, new)))
        case = f"{name} {'.'.join(map(str, place))} = {'deleted' if new is DELETED else str(new)[:40]}"
        try:
            rehash(folder, None if name.name == "manifest.json" else str(name))
        except (ProtclipError, AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
            assert name.name == "manifest.json", case  # what cannot be made to fit stays as it is
        try:
            same = answers(folder) == expected
            # Pairs that are listed no longer are other pairs, and as good.
            assert same or (kind == "pairs" and place[0] == "files"), f"{case}: another answer"
            outcomes[f"{name}: the same answers"] += 1
        except ProtclipError as error:
            assert "\n" not in str(error), case
            outcomes[f"{name}: refused"] += 1
        except Exception as error:
            raise AssertionError(f"{case}: {error!r}") from error
        (folder / "manifest.json").write_bytes(manifest)
        path.write_bytes(before)
    assert answers(folder) == expected
    return outcomes


@pytest.mark.slow
@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_json_with_one_odd_value_is_refused_or_answers_as_before(tmp_path: Path, kind: str) -> None:
    outcomes = run(kind, tmp_path / "folder", count=120, seed=0)
    assert outcomes["manifest.json: refused"] > 10


@pytest.mark.prove
@pytest.mark.parametrize("kind", KINDS)
def test_json_with_any_odd_value_is_refused_or_answers_as_before(tmp_path: Path, kind: str) -> None:
    outcomes = run(kind, tmp_path / "folder", count=None, seed=0)
    print(json.dumps(outcomes, indent=1, sort_keys=True))


@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_regular_one_is_refused(tmp_path: Path, kind: str) -> None:
    make, answers = KINDS[kind]
    good, bad = tmp_path / "good", tmp_path / "bad"
    make(good)
    shutil.copytree(good, bad)
    for path in [path for path in sorted(bad.rglob("*")) if path.is_file()]:
        there = good / path.relative_to(bad)
        for replace in (lambda path=path: os.mkfifo(path), lambda path=path, there=there: path.symlink_to(there)):
            path.unlink()
            replace()
            with pytest.raises(ProtclipError, match=r"is no regular file|outside of its folder"):
                # A link to the manifest is as good as a path to it.
                answers(bad) if path.name != "manifest.json" or path.is_fifo() else path_inside(str(bad), path.name)
        path.unlink()
        shutil.copy(there, path)
