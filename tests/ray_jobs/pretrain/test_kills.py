"""protclip pretrain under SIGKILL: given again, it ends with the weights of a run that nothing disturbed."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from disks import small_disk
from kills import COMMAND, ROOT, family, finish_despite_kills, kill, run_until
from trained_runs import SETTINGS, assert_same_rows, assert_same_run, history, num_rows_logged

from protclip.__main__ import cli
from protclip.train.checkpoints import committed

NUM_STEPS = 60
"""Of a run, about; each is a line of the row log of each worker."""
KILLED = (*SETTINGS, "epochs=4", "workers.resources={CPU: 0.4}")
ENGINE = ("batch.micro_batches=2", "model.activation_checkpointing=true")
"""Of the long proofs, which so hold for these too."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("pairs")
    data, pairs = str(folder / "proteome.dat.gz"), str(folder / "pairs")
    runner = CliRunner()
    runner.invoke(cli, ["synthesize", "--output", data, "--entries", "400", "--families", "20"], catch_exceptions=False)
    options = ("--dataset", "all", "--split-by", "sequence", "--valid-fraction", "0.05", "--row-group-rows", "32")
    runner.invoke(cli, ["curate", data, "--output", pairs, *options], catch_exceptions=False)
    return pairs


def arguments(pairs: str, folder: Path, *settings: str) -> list[str]:
    return ["pretrain", "tiny_cpu", f"data.pairs={pairs}", f"run_dir={folder}", *KILLED, *settings]


def undisturbed(pairs: str, folder: Path, *settings: str) -> Path:
    CliRunner().invoke(cli, arguments(pairs, folder, *settings), catch_exceptions=False)
    return folder


def check_kills(pairs: str, tmp_path: Path, *, victims: Sequence[str], seed: int, settings: Sequence[str] = ()) -> None:
    wanted = undisturbed(pairs, tmp_path / "calm", *settings)
    folder = tmp_path / "killed"
    log = finish_despite_kills(
        [*COMMAND, *arguments(pairs, folder, *settings)],
        progress=lambda: num_rows_logged(folder),
        moments=random.Random(seed).sample(range(5, NUM_STEPS), len(victims)),
        victims=victims,
        seed=seed,
        is_done=(folder / "best/manifest.json").exists,
        patience_s=25.0,
    )
    print(f"{len(log)} kills, seed {seed}: {'; '.join(log)}")
    assert len(log) == len(victims)
    assert_same_run(folder, wanted)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(pairs: str, tmp_path: Path) -> None:
    check_kills(pairs, tmp_path, victims=["run"], seed=1, settings=["epochs=2"])


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_ends_the_run_and_a_later_one_goes_on_from_the_last_checkpoint(pairs: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "30m") as folder:
        run, ballast = folder / "run", folder / "ballast"
        command = [*COMMAND, *arguments(pairs, run, "workers.num=1")]
        process, reached = run_until(command, lambda: len(committed(str(run))) > 0)
        assert reached, process.communicate()
        with contextlib.suppress(OSError), ballast.open("wb") as stream:
            while True:
                stream.write(bytes(1 << 12))
                stream.flush()
        _, errors = process.communicate()
        assert process.returncode != 0
        last = errors.strip().splitlines()[-1]  # behind what Ray has to say
        assert last.startswith("ProtclipError: ")
        assert "No space left on device" in last
        before = committed(str(run))
        newest = max(before)
        ballast.unlink()
        damaged = Path(newest, "model.safetensors")
        if len(before) > 1:
            damaged.write_bytes(damaged.read_bytes()[:-1])
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "going on after step" in done.stdout
        assert len(before) == 1 or str(damaged) in done.stdout  # passed over, by name
        assert_same_rows(run, run)


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", ["num=1", "num=3", "num=4", "strategy=fsdp"])
def test_other_workers_go_on_with_the_same_rows(pairs: str, tmp_path: Path, workers: str) -> None:
    # In bfloat16 each worker's gradients are rounded before they are added, so that their number is seen sooner.
    exact = "precision=float32"
    wanted = undisturbed(pairs, tmp_path / "calm", exact)
    folder = tmp_path / "run"
    process, reached = run_until(
        [*COMMAND, *arguments(pairs, folder, exact)],
        lambda: num_rows_logged(folder) > 20 and len(committed(str(folder))) > 0,
    )
    assert reached, process.communicate()
    kill(family(process))
    process.communicate()
    undisturbed(pairs, folder, exact, f"workers.{workers}", "workers.resources={CPU: 0.2}")
    assert_same_rows(folder, wanted)
    # Sums in another order, and AdamW, which makes much of the small differences in small gradients.
    for found, other in zip(history(folder), history(wanted), strict=True):
        assert found["valid"]["loss"] == pytest.approx(other["valid"]["loss"], rel=1e-5)


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("num_workers", [3, 4])
def test_a_killed_run_of_more_workers_ends_with_the_same_bits(pairs: str, tmp_path: Path, num_workers: int) -> None:
    settings = (*ENGINE, f"workers.num={num_workers}", "workers.resources={CPU: 0.2}")
    check_kills(pairs, tmp_path, victims=["run", "run"], seed=2, settings=settings)


@pytest.mark.prove
@pytest.mark.usefixtures("ray_cluster")
def test_ten_kills_change_no_bit(pairs: str, tmp_path: Path) -> None:
    victims = [
        "train worker",
        "driver",
        "node",
        "train worker",
        "run",
        "driver",
        "train worker",
        "node",
        "driver",
        "run",
    ]
    check_kills(pairs, tmp_path, victims=victims, seed=0, settings=ENGINE)
