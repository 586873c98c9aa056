"""A private Ray head meets nothing of another Ray on the machine, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import HANGS_S

from cluster.folders import find_folder
from protclip.errors import ConfigError
from ray_jobs import local_head
from ray_jobs.local_head import Head, start_head, stop_head

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder that holds the token of some other Ray."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def other_head(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Another Ray on the same machine, started before ours."""
    assert os.environ["HOME"] == str(home)
    folder = str(tmp_path_factory.mktemp("other"))
    yield start_head(folder, num_cpus=1, object_store_mb=80)
    stop_head(folder)


@pytest.fixture(scope="module")
def head(other_head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Ours. The addresses in this process's environment are the other's."""
    folder = str(tmp_path_factory.mktemp("ours"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in other_head.environment().items():
            patch.setenv(name, value)
        ours = start_head(folder, num_cpus=2, object_store_mb=80, environment={"PROTCLIP_TEST": "passed on"})
    yield ours
    stop_head(folder)


def _submit(head: Head, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ray"), "job", "submit", *arguments],
        env=head.environment(),
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )


def _is_running(pid: int) -> bool:
    """A zombie waits for its parent and runs no more."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.ray
def test_a_submitted_job_sees_our_commands_and_our_cluster(head: Head, tmp_path: Path) -> None:
    tell = (
        "import os, shutil, sys, json, ray; ray.init(logging_level='error'); print('TOLD' + json.dumps("
        "[sys.executable, shutil.which('protclip'), ray.cluster_resources()['CPU'], os.environ['PROTCLIP_TEST']]))"
    )
    done = _submit(head, "--working-dir", str(tmp_path), "--", "python", "-c", tell)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]
    python, command, num_cpus, passed_on = json.loads(line.removeprefix("TOLD"))
    assert Path(python).parent == BIN
    assert Path(command).parent == BIN
    assert num_cpus == 2  # the other has one
    assert passed_on == "passed on"


@pytest.mark.ray
def test_the_head_refuses_a_token_that_is_not_its_own(head: Head, home: Path) -> None:
    with_home_token = {**head.environment(), "RAY_AUTH_TOKEN_PATH": str(home / ".ray" / "auth_token")}
    done = subprocess.run(
        [str(BIN / "ray"), "job", "list"],
        env=with_home_token,
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert done.returncode != 0
    assert "uthentication" in done.stderr


@pytest.mark.ray
def test_joining_with_a_token_that_is_not_its_own_is_one_line(
    head: Head, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / ".ray" / "auth_token"))
    script = (
        "from cluster.environment import *; prepare_environment(); from cluster.connection import *; start_or_join()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"protclip.errors.ConfigError: RAY_ADDRESS={head.address}: refuses the token (RAY_AUTH_MODE=token); name the "
        "one of this cluster with RAY_AUTH_TOKEN_PATH."
    )


@pytest.mark.ray
def test_the_home_folder_is_not_touched(head: Head, home: Path) -> None:
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == [".ray", ".ray/auth_token"]
    assert (home / ".ray" / "auth_token").read_text() == "0" * 64
    assert Path(head.token_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.ray
def test_stop_ends_everything_of_its_own_and_nothing_else(head: Head, other_head: Head) -> None:
    # The worst case: what a job left behind, orphaned and in a session of its own.
    leave = "import subprocess; print('LEFT', subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    done = _submit(head, "--", "python", "-c", leave)
    (orphan,) = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("LEFT")]
    others = {process.pid for process in other_head.processes()}
    ours = {process.pid for process in head.processes()}
    assert orphan in ours
    assert not others & ours
    head.stop()
    assert head.processes() == []
    assert find_folder(head.mark) is None
    assert not any(_is_running(pid) for pid in ours)
    assert all(_is_running(pid) for pid in others)


@pytest.mark.ray
def test_a_start_that_fails_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)`ray start` ended with status .*ray_start\.log ends:.*nonnegative"):
        start_head(str(tmp_path), num_cpus=-1)
    assert not (tmp_path / local_head.STATE_FILE).exists()


@pytest.mark.unit
def test_no_head_to_stop_is_no_error(tmp_path: Path) -> None:
    assert stop_head(str(tmp_path)) is False


@pytest.mark.unit
def test_a_head_of_another_temporary_folder_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "root" / "0123abcd").mkdir(mode=0o700, parents=True)
    (tmp_path / local_head.STATE_FILE).write_text(json.dumps({"mark": "0123abcd", "root": str(tmp_path / "root")}))
    with pytest.raises(ConfigError, match=f"set TMPDIR='{tmp_path}'"):
        stop_head(str(tmp_path))
    assert (tmp_path / "root" / "0123abcd").exists()


@pytest.mark.unit
def test_the_environment_names_no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    monkeypatch.setenv("RAY_JOB_HEADERS", "{}")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    head = Head(mark="m", session=1, address="a:1", dashboard_url="http://a:2", token_path="t")
    environment = head.environment()
    assert environment["RAY_ADDRESS"] == "a:1"
    assert "RAY_AUTH_TOKEN" not in environment
    assert "RAY_JOB_HEADERS" not in environment
    assert "127.0.0.1" in environment["no_proxy"].split(",")
    assert environment["PATH"].split(os.pathsep)[0] == str(BIN)


@pytest.mark.unit
def test_a_session_number_that_went_to_somebody_else_is_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        head = Head(mark="gone", session=stranger.pid, address="", dashboard_url="", token_path="")
        head.stop(timeout_s=0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
