"""Where an index lies: full and read-only disks, and S3."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from disks import resize, small_disk
from index_folders import unit_vectors, write_embeddings
from s3_server import s3  # noqa: F401
from tiny_model import random_sequences, tiny_model, write_protein_index

from protclip import files
from protclip.commands.search import main as search
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index

CONFIG = IndexConfig(shard_rows=150, ef_search=40)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A folder with room for 400 kB."""
    with small_disk(tmp_path / "disk", "400k") as folder:
        yield folder


@pytest.fixture
def embeddings(tmp_path):
    return read_embeddings(write_embeddings(tmp_path / "embeddings", unit_vectors(300, 128)))


@pytest.mark.unit
@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_with_room_the_run_goes_on(disk, embeddings, tmp_path):
    for room in (8, 100, 190, 250, 330):  # kB: for nothing, for the first graph, nearly for all
        resize(disk, f"{room}k")
        with pytest.raises(ConfigError, match=r"cannot be written|bytes were written"):
            build_from(embeddings, str(disk / "i"), CONFIG)
        assert not (disk / "i" / "manifest.json").exists()
        with pytest.raises(DataError):
            Index.load(str(disk / "i"))
        assert not list((disk / "i").glob("*.tmp"))
    resize(disk, "2m")
    build_from(embeddings, str(disk / "i"), CONFIG)
    build_from(embeddings, str(tmp_path / "whole"), CONFIG)
    one, two = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (disk / "i", tmp_path / "whole")
    )
    assert one == two


@pytest.mark.unit
def test_a_read_only_disk_is_one_clear_error(disk, embeddings):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        build_from(embeddings, str(disk / "i"), CONFIG)


@pytest.mark.unit
@pytest.mark.parametrize("output", ["/dev/full", "/dev/full/index", "/proc/index"])
def test_what_is_no_folder_is_one_clear_error(embeddings, output):
    with pytest.raises(ConfigError, match="cannot be written"):
        build_from(embeddings, output, CONFIG)


def upload(folder: Path, url: str) -> str:
    for path in folder.iterdir():
        files.copy(path, files.join(url, path.name))
    return url


def test_an_index_is_built_released_and_searched_on_s3(s3, tmp_path):  # noqa: F811
    model, sequences = tiny_model(), random_sequences(60)
    model.save_pretrained(str(tmp_path / "checkpoint"))
    write_protein_index(tmp_path, model, sequences)
    url = upload(tmp_path / "embeddings", f"{s3}/embeddings")
    config = IndexConfig(shard_rows=40, ef_search=40)
    first = build_from(read_embeddings(url), f"{s3}/index", config)
    assert len(first.segments) == 2
    assert build_from(read_embeddings(str(tmp_path / "embeddings")), str(tmp_path / "local"), config) == first

    vectors = model.embed_proteins([*sequences[2:], *random_sequences(2, seed=3)])
    names = [f"P{i:05d}" for i in range(2, 62)]
    write_embeddings(tmp_path / "e2", vectors, accessions=names, fingerprint=model.fingerprint)
    second = build_from(
        read_embeddings(upload(tmp_path / "e2", f"{s3}/e2")), f"{s3}/index2", config, previous=f"{s3}/index"
    )
    assert second.release == {"added": 2, "changed": 0, "removed": 2, "redescribed": 58, "compacted": False}
    assert Index.load(f"{s3}/index2").hits(vectors[-1], 1)[0]["accession"] == "P00061"

    fasta, answers = f"{s3}/questions.fasta", f"{s3}/answers.json"
    with fsspec.open(fasta, "w") as stream:
        stream.write("".join(f">Q{i}\n{sequences[i]}\n" for i in (5, 7)))
    arguments = [f"{s3}/index2", "--checkpoint", str(tmp_path / "checkpoint"), "--fasta", fasta, "--output", answers]
    result = CliRunner().invoke(search, [*arguments, "-k", "1"])
    assert result.exception is None, result.exception
    found = json.loads(fsspec.open(answers).open().read())["queries"]
    assert [query["hits"][0]["accession"] for query in found] == ["P00005", "P00007"]


def test_a_damaged_or_unfinished_index_on_s3_is_refused(s3, embeddings):  # noqa: F811
    url = f"{s3}/damaged"
    build_from(embeddings, url, CONFIG)
    with fsspec.open(f"{url}/segment-00001.hnsw") as stream:
        content = bytearray(stream.read())
    content[len(content) // 2] ^= 1
    with fsspec.open(f"{url}/segment-00001.hnsw", "wb") as stream:
        stream.write(content)
    with pytest.raises(DataError, match="SHA-256"):
        Index.load(url)
    files.remove(f"{url}/manifest.json")
    with pytest.raises(DataError, match="unfinished"):
        Index.load(url)


def test_an_error_while_writing_leaves_nothing_behind(s3):  # noqa: F811
    with pytest.raises(ZeroDivisionError), files.atomic_write(f"{s3}/half") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert not files.exists(f"{s3}/half")


def test_a_missing_bucket_is_one_clear_error_and_is_not_made(s3, embeddings):  # noqa: F811
    with pytest.raises(ConfigError, match="no-such-bucket"):
        build_from(embeddings, "s3://no-such-bucket/index", CONFIG)
    with pytest.raises(DataError, match="is missing"):
        Index.load("s3://no-such-bucket/index")
    with pytest.raises(DataError, match="is missing"):
        read_embeddings("s3://no-such-bucket/embeddings")
    assert not files.exists("s3://no-such-bucket")
    assert s3
