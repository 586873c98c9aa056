"""A folder of pairs as an object: what it is known by, and that it is read once."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pairs_folders import row, write_pairs

from protclip.manifest import describe, read_manifest, write_manifest
from protclip.parquet import open_parquet
from protclip.protanno import shards
from protclip.protanno.changes import CHANGES_FILE, write_changes
from protclip.protanno.shards import KIND, read_pairs, read_row_group, read_row_groups
from protclip.protanno.statistics import pairs_statistics
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit


def make_pairs(folder: Path, *, sequence: str = "MKV") -> str:
    rows = [row(Entry(accession=f"A{i}", sequence=sequence + "A" * i, name=f"Protein {i}")) for i in range(7)]
    write_pairs(folder, {"train-00000-of-00002": rows[:3], "train-00001-of-00002": rows[3:5], "valid-00000": rows[5:]})
    return str(folder)


def compare_with(folder: str, previous: str) -> None:
    """Add the file of changes, as ``curate --previous`` does."""
    manifest = read_manifest(folder, KIND)
    write_changes(previous, [f"{folder}/{name}" for name in read_pairs(folder).shards], folder)
    body = {
        name: value for name, value in manifest.items() if name not in ("kind", "schema_version", "software", "files")
    }
    described = {**manifest["files"], CHANGES_FILE: describe(f"{folder}/{CHANGES_FILE}")}
    write_manifest(folder, KIND, [], described=described, **body)


def test_row_groups_of_a_file_are_read_with_one_look_at_its_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_pairs(make_pairs(tmp_path / "pairs")).row_groups("train")[0]
    opened: list[str] = []

    def counting(path: str) -> contextlib.AbstractContextManager[pq.ParquetFile]:
        opened.append(path)
        return open_parquet(path)

    monkeypatch.setattr(shards, "open_parquet", counting)
    tables = list(read_row_groups(first.path, [0, 0, 0], columns=["accession"]))
    assert opened == [first.path]
    assert tables == [read_row_group(first, columns=["accession"])] * 3


def test_row_groups_stand_in_the_order_of_the_shards(tmp_path: Path) -> None:
    pairs = read_pairs(make_pairs(tmp_path / "pairs"))
    found = [(Path(group.path).name, group.index, group.num_rows) for group in pairs.row_groups("train")]
    first, second = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
    assert found == [(first, 0, 2), (first, 1, 1), (second, 0, 2)]
    assert [pairs.num_rows(split) for split in ("train", "valid", "test")] == [5, 2, 0]


def test_manifest_and_footers_are_read_once(tmp_path: Path) -> None:
    pairs = read_pairs(make_pairs(tmp_path / "pairs"))
    before = (pairs.row_groups("train"), pairs.fingerprint, pairs.draws_each_epoch)
    shutil.rmtree(tmp_path / "pairs")
    assert (pairs.row_groups("train"), pairs.fingerprint, pairs.draws_each_epoch) == before


def test_the_fingerprint_is_of_the_pairs_wherever_they_lie(tmp_path: Path) -> None:
    here = read_pairs(make_pairs(tmp_path / "here"))
    there = read_pairs(make_pairs(tmp_path / "there"))
    other = read_pairs(make_pairs(tmp_path / "other", sequence="MKL"))
    assert here.fingerprint == there.fingerprint != other.fingerprint


def test_what_has_changed_is_no_pair(tmp_path: Path) -> None:
    folder, previous = make_pairs(tmp_path / "next"), make_pairs(tmp_path / "previous", sequence="MKL")
    before, counted = read_pairs(folder), pairs_statistics(folder)
    compare_with(folder, previous)
    after = read_pairs(folder)
    assert CHANGES_FILE in after.manifest["files"]
    assert (after.fingerprint, after.shards) == (before.fingerprint, before.shards)
    assert pairs_statistics(folder) == counted
