"""What a user has in a folder, or on PYTHONPATH, does not break or hang a job without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kills import COMMAND_ON_RAY

BIN = Path(sys.executable).parent
FASTA = ">sp|P69905|HBA_HUMAN Hemoglobin subunit alpha OS=Homo sapiens OX=9606 GN=HBA1 PE=1 SV=2\nMVLSPADKTNVKAAW\n"


@pytest.mark.ray
def test_a_file_of_the_user_is_no_module_of_the_workers(tmp_path: Path) -> None:
    for name in ("pyarrow", "statistics", "tokenizers", "protclip"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('this is the {name}.py of the user')\n")
    (tmp_path / "some.fasta").write_text(FASTA)
    done = subprocess.run(
        [*COMMAND_ON_RAY, "curate", "some.fasta", "--output", "pairs", "--dataset", "all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1 pairs kept" in done.stdout


@pytest.mark.ray
@pytest.mark.parametrize(
    ("spoiler", "timeout_s", "said"),
    [
        ("raise SystemExit('no worker today')", 10.0, "no worker of Ray started within 10 s (raylet.err ends: "),
        ("sys.modules['cluster'] = None", 60.0, "Ray's workers cannot run protclip (ModuleNotFoundError: "),
    ],
)
def test_workers_that_cannot_run_are_told_of_once(tmp_path: Path, spoiler: str, timeout_s: float, said: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nif any('default_worker' in word for word in sys.orig_argv):\n    {spoiler}\n"
    )
    script = (
        "from cluster import connection\n"
        "from cluster.environment import prepare_environment\n"
        "prepare_environment()\n"
        f"connection.require_worker.__defaults__ = ({timeout_s},)\n"
        "connection.start_or_join(num_cpus=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert f"ConfigError: {said}" in done.stderr.splitlines()[-1], done.stderr
