"""protclip embed where its output cannot go, and on object stores."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import disks
import numpy as np
import pytest
from kills import COMMAND, ROOT
from s3_server import s3  # noqa: F401
from tiny_model import random_sequences, tiny_model

from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError
from protclip.manifest import read_manifest
from ray_jobs.embed.main import main

pytestmark = [pytest.mark.ray]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    fasta = tmp_path / "some.fasta"
    fasta.write_text("".join(f">A{i}\n{sequence}\n" for i, sequence in enumerate(random_sequences(300))))
    return [str(fasta), "--checkpoint", str(tmp_path / "model"), "--part-rows", "30", "--workers", "1"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "100k") as folder:
        yield folder


def embed(arguments: list[str], output: str) -> None:
    main.main([*arguments, "--output", output], standalone_mode=False)


@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_is_told_and_leaves_only_what_is_whole(
    arguments: list[str], small_disk: Path, tmp_path: Path
) -> None:
    output = small_disk / "out"
    with pytest.raises(ConfigError, match=r"cannot be written.*No space left on device"):
        embed(arguments, str(output))
    assert not (output / "manifest.json").exists()
    assert not list(output.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ConfigError, match="Read-only file system"):
        embed(arguments, str(output))
    disks.resize(small_disk, "50m")
    embed(arguments, str(output))
    embed(arguments, str(tmp_path / "calm"))
    wanted = read_manifest(str(tmp_path / "calm"), "embeddings", verify=True)
    assert read_manifest(str(output), "embeddings", verify=True) == wanted


def test_a_device_is_no_folder(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="/dev/full"):
        embed(arguments, "/dev/full")


def test_a_whole_run_on_an_object_store(
    arguments: list[str],
    tmp_path: Path,
    s3: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import s3fs

    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path / "cache"))
    store = s3fs.S3FileSystem()
    store.put(str(tmp_path / "model"), f"{s3}/model", recursive=True)
    store.put(arguments[0], f"{s3}/some.fasta")
    command = [*COMMAND, "embed", f"{s3}/some.fasta", "--checkpoint", f"{s3}/model", "--dtype", "bfloat16"]
    command += ["--part-rows", "100", "--workers", "1", "--output"]

    def run(output: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, output], cwd=ROOT, capture_output=True, text=True, check=False)

    lost = run("s3://no-such-bucket/out")
    assert lost.returncode == 1
    assert lost.stderr.strip().splitlines()[-1].startswith("ConfigError: s3://no-such-bucket/out")
    assert "there is no bucket 'no-such-bucket'" in lost.stderr
    done = run(f"{s3}/out")
    assert done.returncode == 0, done.stderr
    found = read_embeddings(f"{s3}/out")
    wanted = tiny_model(dtype="bfloat16").embed_proteins(random_sequences(300))
    assert found.ids.tolist() == [f"A{i}" for i in range(300)]
    assert np.abs(found.vectors - wanted).max() <= 1e-6
    names = {name.rsplit("/", 1)[-1] for name in store.find(f"{s3}/out")}
    assert names == {"part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "manifest.json"}
