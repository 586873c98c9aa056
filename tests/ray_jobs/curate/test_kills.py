"""protclip curate under SIGKILL: given again, it ends with the files of a run that nothing disturbed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from kills import COMMAND, COMMAND_ON_RAY, rehearse_kills
from s3_server import place, s3  # noqa: F401

from protclip import files
from protclip.manifest import read_manifest
from protclip.protanno.synthetic import synthetic_proteome
from ray_jobs.curate.main import main

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


def check(
    tmp_path: Path, there: str, *, victims: Sequence[str], seed: int, command: Sequence[str] = COMMAND_ON_RAY
) -> None:
    paths = write_inputs(tmp_path)
    folder = files.join(there, "killed")
    rehearse_kills(
        [*command, "curate", *paths, *OPTIONS],
        folder,
        lambda calm: main.main([*paths, "--output", calm, *OPTIONS], standalone_mode=False),
        calm=tmp_path / "calm",
        counted="*",
        moments=random.Random(seed).sample(range(1, NUM_FILES), len(victims)),
        victims=victims,
        seed=seed,
    )
    assert read_manifest(folder, "pairs")["counts"]["quarantined"] == NUM_INPUTS


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("place", [pytest.param("local", marks=pytest.mark.prove), "s3"], indirect=True)
def test_a_killed_run_given_again_ends_with_the_files_of_an_undisturbed_one(
    tmp_path: Path,
    place: str,  # noqa: F811
) -> None:
    check(tmp_path, place, victims=["run"], seed=4)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_small_job_killed_without_ray_ends_with_the_files_of_one_on_ray(tmp_path: Path) -> None:
    check(tmp_path, str(tmp_path), victims=["run", "run"], seed=7, command=COMMAND)


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
def test_ten_kills_of_runs_nodes_and_workers_change_no_byte(tmp_path: Path) -> None:
    check(
        tmp_path,
        str(tmp_path),
        victims=["run", "node", "worker", "run", "run", "worker", "run", "node", "run", "run"],
        seed=0,
    )
