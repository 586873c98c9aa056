"""protclip curate under SIGKILL: given again, it ends with the files of a run that nothing disturbed."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from protclip.manifest import read_manifest
from protclip.protanno.synthetic import synthetic_proteome
from ray_jobs.curate import main

ROOT = Path(__file__).parents[2]
OPTIONS = ("--dataset", "all", "--deduplicate", "--valid-fraction", "0.2", "--shard-mb", "0.02")
NUM_INPUTS = 6
NUM_FILES = 50
"""In the folder while a run still has work."""


def write_inputs(folder: Path) -> list[str]:
    entries = list(synthetic_proteome(120, 6, seed=1))
    for i in range(NUM_INPUTS):
        text = "".join(entries[i::NUM_INPUTS])
        (folder / f"{i}.dat").write_text(text.replace("CRC64", "CRC32", 1))  # one for the quarantine
    return [str(folder / f"{i}.dat") for i in range(NUM_INPUTS)]


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The driver, its Ray's node and its workers, as far as they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    return []


def kill(victims: Sequence[psutil.Process]) -> None:
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def run_until(command: Sequence[str], folder: Path, num_files: int) -> tuple[subprocess.Popen[str], bool]:
    """Start the command; return when so many files are there (True), or when it has ended."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        # os.walk passes over folders that go while it looks.
        if sum(len(names) for _, _, names in os.walk(folder)) >= num_files:
            return process, True
        time.sleep(0.002)
    return process, False


def finish_despite_kills(paths: Sequence[str], folder: Path, *, victims: Sequence[str], seed: int) -> list[str]:
    """Give the command again and again, killed as often as there are victims; says what was killed when.

    Args:
        paths: the inputs.
        folder: the output.
        victims: ``run`` is the driver with its node and workers, ``node`` Ray's own process, ``worker`` one worker.
        seed: of the moments; they are numbers of files in the folder, and up to 50 ms more.
    """
    rng = random.Random(seed)
    moments = sorted(rng.sample(range(1, NUM_FILES), len(victims)))
    command = [sys.executable, "-m", "ray_jobs", "curate", *paths, "--output", str(folder), *OPTIONS]
    log = []
    for victim, moment in zip(victims, moments, strict=True):
        what = victim
        process, reached = run_until(command, folder, moment)
        time.sleep(rng.random() * 0.05)
        everything = family(process)
        names = {"run": "", "node": "raylet/raylet", "worker": "ray::"}
        chosen = [one for one in everything if names[what] in " ".join(one.cmdline()[:1])]
        if not chosen:  # none is up yet
            what, chosen = "run", everything
        kill(chosen[:1] if what == "worker" else chosen)
        log.append(f"{what} at {moment} files" if reached and chosen else f"{what}: nothing to kill")
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Ray does a killed worker's task again, and the run may end well.
            process.wait(0 if what == "run" else 2)
        kill([*everything, *family(process)])
        process.communicate()
    errors = ""
    for _ in range(3):  # on a loaded machine Ray itself may not come up, which is one more interruption
        if not (folder / "manifest.json").exists() or (folder / ".work").exists():
            process, _ = run_until(command, folder, sys.maxsize)
            errors = process.communicate()[1]
    assert (folder / "manifest.json").exists(), errors
    return log


def check(tmp_path: Path, *, victims: Sequence[str], seed: int) -> None:
    paths = write_inputs(tmp_path)
    log = finish_despite_kills(paths, tmp_path / "killed", victims=victims, seed=seed)
    main.main([*paths, "--output", str(tmp_path / "calm"), *OPTIONS], standalone_mode=False)
    folders = [tmp_path / name for name in ("killed", "calm")]
    killed, calm = (read_manifest(str(folder), "pairs", verify=True) for folder in folders)
    assert killed == calm
    names = [{path.name for path in folder.rglob("*")} for folder in folders]
    assert names[0] == names[1] == {*calm["files"], "manifest.json"}
    assert calm["counts"]["quarantined"] == NUM_INPUTS
    print(f"{len(log)} kills, seed {seed}: {'; '.join(log)}")
    assert not any("nothing" in line for line in log), log


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_run_given_again_ends_with_the_files_of_an_undisturbed_one(tmp_path: Path) -> None:
    check(tmp_path, victims=["run"], seed=4)


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
def test_ten_kills_of_runs_nodes_and_workers_change_no_byte(tmp_path: Path) -> None:
    check(tmp_path, victims=["run", "node", "worker", "run", "run", "worker", "run", "node", "run", "run"], seed=0)
