"""Folders of our own Rays are private, outlive nobody, and are removed only if they are ours."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.environment import MARK_VARIABLE
from cluster.folders import RayFolder, find_folder, make_folder, private_root

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch):
    """A temporary folder with a path as short as the system's."""
    folder = Path("/tmp", f"p{secrets.token_hex(2)}")
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def _start(script: str, **environment: str) -> subprocess.Popen[str]:
    """A process that has said its first line."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tempfile.gettempdir()), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = "import time; from cluster.folders import make_folder; print(make_folder().name, flush=True); time.sleep(60)"


def test_all_of_it_is_private_and_short(base: Path) -> None:
    folder = make_folder()
    token = Path(folder.token_path)
    assert folder.path.parent == private_root() == base / f"protclip-{os.getuid()}"
    assert [path.stat().st_mode & 0o777 for path in (private_root(), folder.path, token)] == [0o700, 0o700, 0o600]
    assert len(token.read_text()) == 64
    assert folder.temp_dir == str(folder.path / "ray")
    folder.remove()
    assert find_folder(folder.name) is None


def test_a_long_temporary_folder_is_not_used(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base / ("long" * 20)))
    assert private_root().parent == Path("/tmp")


def test_a_root_that_another_prepared_is_not_used(base: Path, tmp_path: Path) -> None:
    names = [f"protclip-{os.getuid()}", *(f"protclip-{os.getuid()}-{number}" for number in (1, 2, 3))]
    (base / names[0]).symlink_to(tmp_path)
    (base / names[1]).mkdir()
    (base / names[1]).chmod(0o777)
    (base / names[2]).write_text("")
    assert private_root() == base / names[3]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_start_and_what_lives_stays() -> None:
    killed, living = _start(HOLD), _start(HOLD)
    try:
        assert killed.stdout is not None and living.stdout is not None
        left, held = killed.stdout.readline().strip(), living.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert find_folder(left) is not None and find_folder(held) is not None
        folder = make_folder()
        assert find_folder(left) is None
        assert find_folder(held) is not None and find_folder(folder.name) is not None
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


def test_a_folder_stays_for_as_long_as_a_process_carries_its_mark() -> None:
    starter = _start(HOLD)
    assert starter.stdout is not None
    name = starter.stdout.readline().strip()
    marked = _start("import time; print('started', flush=True); time.sleep(60)", **{MARK_VARIABLE: name})
    try:
        assert marked.stdout is not None
        marked.stdout.readline()
        starter.kill()
        starter.communicate()
        make_folder()
        assert find_folder(name) is not None
    finally:
        marked.kill()
        marked.communicate()
    make_folder()
    assert find_folder(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "/etc", "ABCDEF01", "lock", "0123456789"])
def test_a_name_that_is_none_of_ours_finds_nothing(name: str) -> None:
    make_folder()
    assert find_folder(name) is None


@pytest.mark.slow
def test_no_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    root = private_root()
    (root / "0123abcd").symlink_to(tmp_path)
    assert find_folder("0123abcd") is None
    RayFolder(path=root / "0123abcd").remove()
    folder = make_folder()
    (folder.path / "ray").symlink_to(tmp_path)
    folder.remove()
    assert not folder.path.exists()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
