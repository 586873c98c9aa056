"""What is said of a process that Ray's core ends: one line, whoever is faster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, subprocess, sys
import psutil
from cluster.last_words import on_silent_end
raylet = subprocess.Popen(["sleep", "60"])
say = on_silent_end(psutil.Process(raylet.pid), "the raylet has died")
if "dies" in sys.argv:
    raylet.kill()
    raylet.wait()
if "says" in sys.argv:
    say("gcs_server was ended")
if "ends" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
raylet.kill()
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (["dies", "ends"], ["the raylet has died"]),
        (["dies", "says", "ends"], ["gcs_server was ended"]),
        (["says"], ["gcs_server was ended"]),
        (["dies"], []),
    ],
    ids=" ".join,
)
def test_one_line_is_said(what: list[str], said: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *what], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.stderr.splitlines() == said
