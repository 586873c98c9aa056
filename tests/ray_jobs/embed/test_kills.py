"""protclip embed under SIGKILL: given again, it ends with the files of a run that nothing disturbed."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from kills import COMMAND, rehearse_kills
from s3_server import place, s3  # noqa: F401
from tiny_model import random_sequences, tiny_model

from protclip import files
from protclip.embeddings.reading import read_embeddings
from ray_jobs.embed.main import main


def check(
    tmp_path: Path,
    there: str,
    fasta: Path,
    *,
    part_rows: int,
    moments: Sequence[int],
    victims: Sequence[str],
    seed: int,
    on_ray: bool = True,
) -> None:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    folder = files.join(there, "killed")
    arguments = [str(fasta), "--checkpoint", str(tmp_path / "model"), "--part-rows", str(part_rows)]
    rehearse_kills(
        [*COMMAND, "embed", *arguments, *(["--workers", "2"] if on_ray else [])],
        folder,
        lambda calm: main.main([*arguments, "--output", calm], standalone_mode=False),
        calm=tmp_path / "calm",
        counted=".work/*/parts/*.json",
        moments=moments,
        victims=victims,
        seed=seed,
    )
    with gzip.open(fasta, "rt") as lines:
        accessions = [line.split("|")[1] for line in lines if line.startswith(">")]
    assert read_embeddings(folder).ids.tolist() == accessions


def write_fasta(path: Path, count: int) -> Path:
    with gzip.open(path, "wt") as stream:
        for i, sequence in enumerate(random_sequences(count)):
            stream.write(f">tr|A{i:05d}|A{i}_TEST Protein {i}\n{sequence}\n")
    return path


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("place", [pytest.param("local", marks=pytest.mark.prove), "s3"], indirect=True)
def test_a_killed_run_given_again_ends_with_the_files_of_an_undisturbed_one(
    tmp_path: Path,
    place: str,  # noqa: F811
) -> None:
    fasta = write_fasta(tmp_path / "some.fasta.gz", 600)
    check(tmp_path, place, fasta, part_rows=30, moments=[6], victims=["run"], seed=5)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_small_job_killed_without_ray_ends_with_the_files_of_one_on_ray(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "some.fasta.gz", 600)
    check(tmp_path, str(tmp_path), fasta, part_rows=30, moments=[4, 11], victims=["run", "run"], seed=3, on_ray=False)


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
def test_twenty_kills_of_runs_drivers_nodes_and_actors_lose_and_change_nothing(tmp_path: Path, real_data: Path) -> None:
    part_rows, seed = 200, 0
    num_parts = 20_000 // part_rows
    moments = sorted(random.Random(seed).sample(range(1, num_parts), 20))
    victims = ["worker", "run", "driver", "node", "worker"] * 4
    check(
        tmp_path,
        str(tmp_path),
        real_data / "uniprot" / "sequences_20000.fasta.gz",
        part_rows=part_rows,
        moments=moments,
        victims=victims,
        seed=seed,
    )
