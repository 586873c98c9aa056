"""Two runs on one output, and runs that left nothing or something else there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from protclip.checkpoint_cache import fetch_checkpoint
from protclip.config_file import load_config
from protclip.errors import ConfigError
from protclip.manifest import resume_folder
from protclip.occupied import FILE_NAME, LOST_S, _Run, at_work, occupied
from protclip.protanno.curate import CurateConfig, curate
from ray_jobs.pretrain.run import find_config, pretrain

pytestmark = pytest.mark.unit

HOLD = (
    "import sys; from protclip.occupied import occupied\n"
    "with occupied(sys.argv[1]): print('at work', flush=True); sys.stdin.read()"
)


@pytest.fixture
def url() -> Iterator[str]:
    fsspec.filesystem("memory").makedirs("/bucket", exist_ok=True)
    yield "memory://bucket/out"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def _put(url: str, run: _Run) -> None:
    fsspec.filesystem("memory").pipe(f"{url}/{FILE_NAME}", json.dumps(asdict(run)).encode())


def test_a_later_run_is_told_of_the_one_at_work_until_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None and first.stdout.readline() == "at work\n"
        told = rf"another run is at work there \(host {socket.gethostname()}, process {first.pid}, since 20..-"
        with pytest.raises(ConfigError, match=told), occupied(str(folder)):
            pass
    finally:
        first.kill()
        first.communicate()
    assert (folder / FILE_NAME).exists()
    with occupied(str(folder)):
        assert json.loads((folder / FILE_NAME).read_text())["pid"] == os.getpid()
    assert not folder.exists() or not list(folder.iterdir())


def test_a_run_on_a_store_is_told_from_a_dead_one(url: str) -> None:
    with occupied(url):
        with pytest.raises(ConfigError, match=rf"process {os.getpid()}, since"), occupied(url):
            pass
        assert fsspec.filesystem("memory").exists(f"{url}/{FILE_NAME}")
    assert not fsspec.filesystem("memory").exists(f"{url}/{FILE_NAME}")
    elsewhere = replace(_Run(), host="another")
    _put(url, elsewhere)
    with pytest.raises(ConfigError, match=r"host another.* should that host be lost, the folder is free at"):
        occupied(url).__enter__()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    renewed = (datetime.now(UTC) - timedelta(seconds=LOST_S + 1)).isoformat()
    for dead in (
        replace(elsewhere, renewed=renewed),  # its host was lost
        replace(_Run(), pid=child.pid),  # killed on this machine
        replace(elsewhere, renewed="2026-11-28T05:11:13"),  # of no zone: made up
        replace(elsewhere, renewed="9999-12-31T23:59:59+00:00"),
        _Run(),  # with the number of this process, in a container that was started again
    ):
        _put(url, dead)
        with occupied(url):
            pass


def test_each_stage_refuses_an_output_where_another_run_is_at_work(tmp_path: Path) -> None:
    (tmp_path / "one.fasta").write_text(">sp|P12345|AATM_RABIT Name OS=Homo sapiens OX=9606 PE=1 SV=1\nMKV\n")
    folder = str(tmp_path / "out")
    config = load_config(find_config("tiny_cpu"), [f"run_dir={folder}", f"data.pairs={tmp_path}"])
    with occupied(folder):
        with pytest.raises(ConfigError, match="another run is at work"):
            curate(CurateConfig(inputs=(str(tmp_path / "one.fasta"),), output=folder, overwrite=True))
        with pytest.raises(ConfigError, match="another run is at work"):
            pretrain(config, fresh=True)
        with pytest.raises(ConfigError, match="another run is at work"):
            fetch_checkpoint("http://127.0.0.1:9/model", folder, overwrite=True)


def test_a_run_that_left_nothing_does_not_block_another_one(tmp_path: Path) -> None:
    folder = str(tmp_path)
    work = Path(resume_folder(folder, ["part-*"], {"seed": 0}, overwrite=False))
    (work / "read").mkdir(parents=True)
    assert resume_folder(folder, ["part-*"], {"seed": 1}, overwrite=False) != str(work)
    (tmp_path / "part-00000").write_text("done")
    with pytest.raises(ConfigError, match="seed: 1 there, 2 here"):
        resume_folder(folder, ["part-*"], {"seed": 2}, overwrite=False)


def test_a_message_says_in_words_what_differs_from_the_unfinished_run(tmp_path: Path) -> None:
    def claim(mark: str, digest: str, previous: str | None) -> dict[str, object]:
        return {
            "inputs": {"/data/a.dat": f"12 bytes of {mark} ns"},
            "model_fingerprint": digest * 64,
            "previous": previous and {previous: "5 bytes of 3 ns"},
        }

    work = Path(resume_folder(str(tmp_path), [], claim("1764250000000000001", "a", "/data/old"), overwrite=False))
    work.mkdir()
    (work / "unit").write_text("done")
    with pytest.raises(ConfigError) as raised:
        resume_folder(str(tmp_path), [], claim("1764250000000000002", "b", None), overwrite=False)
    assert ": /data/a.dat has changed; model_fingerprint has changed; /data/old is no longer given. " in str(
        raised.value
    )


def test_who_looks_sees_whether_a_run_is_at_work_and_does_not_disturb_it(tmp_path: Path, url: str) -> None:
    folder = str(tmp_path / "out")
    assert at_work(folder) is None
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None and first.stdout.readline() == "at work\n"
        for _ in range(3):
            found = at_work(folder)
            assert found is not None and (found.pid, found.host) == (first.pid, socket.gethostname())
    finally:
        first.kill()
        first.communicate()
    assert at_work(folder) is None
    # Another machine's, whose process cannot be asked: on a disk nobody holds the lock; on a store its age decides.
    elsewhere = _Run(host="elsewhere")
    Path(folder, FILE_NAME).write_text(json.dumps(asdict(elsewhere)))
    assert at_work(folder) is None
    _put(url, elsewhere)
    assert at_work(url) is not None
    _put(url, replace(elsewhere, renewed=(datetime.now(UTC) - timedelta(seconds=LOST_S + 5)).isoformat()))
    assert at_work(url) is None
    with occupied(folder):
        assert at_work(folder) is not None
