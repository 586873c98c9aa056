"""A job whose Ray dies ends, says what died, and is done when it is given again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest
from kills import COMMAND_ON_RAY, family, kill, names_below, run_until

from protclip.protanno.synthetic import synthetic_proteome

WAIT_S = 300
"""For what takes seconds on a machine that does nothing else."""
AGENT = "runtime_env/agent/main.py"
pytestmark = pytest.mark.ray


def _named(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    found = []
    for one in family(process)[1:]:
        try:
            if name in " ".join(one.cmdline()):
                found.append(one)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("victim", "died"),
    [("raylet/raylet", "raylet"), ("gcs_server", "gcs_server of its Ray was ended by SIGKILL"), (AGENT, "raylet")],
    ids=["raylet", "gcs", "agent"],
)
def test_a_job_whose_ray_is_killed_ends_and_says_what_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str, died: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for i in range(40):
        (tmp_path / f"{i}.dat").write_text("".join(synthetic_proteome(20, 3, seed=i)))
    output = tmp_path / "pairs"
    paths = sorted(map(str, tmp_path.glob("*.dat")))
    command = [*COMMAND_ON_RAY, "curate", *paths, "--output", str(output), "--dataset", "all"]
    process, is_time = run_until(command, lambda: any("/read/" in name for name in names_below(str(output))))
    assert is_time
    victims = _named(process, victim)
    assert victims
    kill(victims)
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    lines = [one for one in said.splitlines() if one.startswith("ConfigError: ")]
    assert len(lines) == 1, said
    assert died in lines[0] and lines[0].endswith("give the same command again: it goes on with what is done.")
