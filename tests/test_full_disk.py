"""A disk without room, and one that is read-only: one clear error with the path, in this process and on Ray."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disks import resize, small_disk
from index_folders import unit_vectors, write_embeddings
from tiny_model import random_sequences, tiny_model

from protclip import files
from protclip.embeddings.embed import embed
from protclip.embeddings.hdf5 import write_h5
from protclip.embeddings.reading import read_embeddings
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.manifest import read_manifest
from protclip.protanno.curate import CurateConfig, curate
from protclip.protanno.synthetic import synthetic_proteome
from protclip.units import InProcess, Item, Run, Work

FULL = r"cannot be written \(\[Errno 28\] No space left on device\); make room, or give another place"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """With 64 kB of room."""
    with small_disk(tmp_path / "disk", "64k") as folder:
        yield folder


NOISE = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)


def _npy(path: str) -> None:
    with files.atomic_write(path) as stream:
        np.save(stream, NOISE)


def _parquet(path: str) -> None:
    with files.atomic_write(path) as stream:
        pq.write_table(pa.table({"a": NOISE.ravel()}), stream)


def _small_pieces(path: str) -> None:
    with files.atomic_write(path) as stream:
        for row in NOISE:
            stream.write(row.tobytes())


@pytest.mark.unit
@pytest.mark.parametrize(
    "write",
    [_npy, _parquet, _small_pieces, lambda path: write_h5(path, [str(i) for i in range(500)], NOISE)],
    ids=["npy", "parquet", "pieces", "h5"],
)
def test_whatever_writes_a_file_names_it_where_there_is_no_room(disk: Path, write: Callable[[str], None]) -> None:
    path = str(disk / "folder" / "file")
    with pytest.raises(ConfigError, match=f"^{path}: {FULL}"):
        write(path)
    assert not list((disk / "folder").iterdir())
    resize(disk, "1m")
    write(path)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(ConfigError, match=f"^{path}: cannot be written .*Read-only file system"):
        write(path)


@pytest.mark.unit
def test_what_fails_while_a_file_is_written_and_is_no_write_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="the cluster"), files.atomic_write(str(tmp_path / "file")) as stream:
        stream.write(b"some")
        raise TimeoutError("the cluster does not answer")
    assert not list(tmp_path.iterdir())


def check_curate(tmp_path: Path, disk: Path, run: Run) -> None:
    (tmp_path / "all.dat").write_text("".join(synthetic_proteome(900, 6, seed=1)))
    config = CurateConfig(inputs=(str(tmp_path / "all.dat"),), output=str(disk / "pairs"))
    with pytest.raises(ConfigError, match=f"^{disk}/pairs.*{FULL}") as caught:
        curate(config, run)
    assert "\n" not in str(caught.value)
    resize(disk, "50m")
    curate(config, run)
    assert read_manifest(config.output, "pairs", verify=True)["counts"]["read"] == 900


@pytest.mark.unit
@pytest.mark.slow
def test_a_full_disk_of_curate_is_one_line_and_with_room_it_goes_on(tmp_path: Path, disk: Path) -> None:
    check_curate(tmp_path, disk, InProcess())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_so_it_is_on_ray(tmp_path: Path, disk: Path) -> None:
    from ray_jobs.pipelines import OnRay

    check_curate(tmp_path, disk, OnRay())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_cut_on_ray_that_finds_no_room_is_one_line_too(disk: Path) -> None:
    from ray_jobs.pipelines import OnRay

    path = str(disk / "blocks.json")

    def cut(_: Item) -> Iterator[Item]:
        yield {"unit": "00000"}
        files.write_json(path, "x" * 100_000)

    with pytest.raises(ConfigError, match=f"^{path}: {FULL}"):
        list(OnRay()(Work(title="", unit=dict, cut=cut), [{}]))


@pytest.mark.unit
def test_a_full_disk_of_embed_is_one_line(tmp_path: Path, disk: Path) -> None:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    records = (f">A{i}\n{sequence}\n" for i, sequence in enumerate(random_sequences(600)))
    (tmp_path / "my.fasta").write_text("".join(records))
    config: Any = {"inputs": (str(tmp_path / "my.fasta"),), "checkpoint": str(tmp_path / "model")}
    with pytest.raises(ConfigError, match=f"^{disk}/out.*{FULL}"):
        embed(EmbedConfig(**config, output=str(disk / "out")))


@pytest.mark.unit
def test_a_full_disk_of_an_index_is_one_line(tmp_path: Path, disk: Path) -> None:
    embeddings = read_embeddings(write_embeddings(tmp_path / "embeddings", unit_vectors(2000)))
    with pytest.raises(ConfigError, match=f"^{disk}/index.*cannot be written|is the disk full"):
        build_from(embeddings, str(disk / "index"), IndexConfig())
