"""protclip pipeline on an object store under SIGKILL: given again, it ends with the index of one never disturbed."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests
from kills import COMMAND, LIKE_TROUBLE, ROOT, family, kill, names_below, run_until
from pipelines import assert_no_secret, checksums, dying, secret, write_pipeline  # noqa: F401
from running import Running
from s3_server import s3  # noqa: F401

from protclip import files
from protclip.__main__ import cli
from protclip.index.manifest import read_index_manifest
from protclip.pipeline.records import FOLDERS, read_record
from protclip.pipeline.status import read_status
from protclip.train.checkpoints import committed

FIRST_OBJECTS = 2
"""Of a stage's folder: its claim, and the record of the run at work."""


def killed_at(config: Path, moment: tuple[str, str]) -> str:
    """Give the command, which dies right before it writes that record; what it printed."""
    command = [*dying(moment), "pipeline", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    return done.stdout + done.stderr


def killed_inside(config: Path, folder: str, stage: str, rng: random.Random) -> str:
    """Give the command and kill it with its Ray while it works at a stage; how much of the stage was there."""
    output = files.join(folder, FOLDERS[stage])
    wanted = rng.randint(1, 3)

    def is_time() -> bool:
        time.sleep(0.02)  # the server is on this machine, and has the pipeline to answer
        record = read_record(folder, stage)
        if record is None or record.state != "begun":
            return False
        if stage == "pretrain":
            return len(committed(output)) >= 1
        return len(names_below(output)) >= FIRST_OBJECTS + wanted

    process, reached = run_until([*COMMAND, "pipeline", str(config)], is_time)
    assert reached, process.communicate()[1]
    time.sleep(rng.random() * 0.05)
    kill(family(process))
    process.communicate()
    record = read_record(folder, stage)
    assert record is not None
    return f"{stage}, {len(names_below(output))} objects, {record.state}"


def finish(config: Path, env: dict[str, str] | None = None) -> str:
    """Give the command to its end; what it printed."""
    command = [*COMMAND, "pipeline", str(config)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not LIKE_TROUBLE.search(done.stderr), done.stderr
    return done.stdout + done.stderr


def check(tmp_path: Path, bucket: str, moments: Sequence[tuple[str, str]], *, seed: int, **stages: None) -> str:
    """Kill a pipeline at moments of stages, ``begun`` and ``done`` as of ``dying`` or ``inside``; gives its folder."""
    rng = random.Random(seed)
    folder = f"{bucket}/{tmp_path.name}/killed"
    config = write_pipeline(tmp_path / "killed.yaml", folder, **stages)
    calm = f"{bucket}/{tmp_path.name}/calm"
    command = [*COMMAND, "pipeline", str(write_pipeline(tmp_path / "calm.yaml", calm, **stages))]
    printed, log, started = [], [], time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as undisturbed:
        for stage, moment in moments:
            if moment == "inside":
                log.append(f"inside {killed_inside(config, folder, stage, rng)}")
                assert read_status(folder).state == "stopped"
            else:
                printed.append(killed_at(config, (stage, moment)))
                log.append(f"before {stage} is recorded as {moment}")
            log[-1] += f", {time.monotonic() - started:.0f} s"
        printed.append(finish(config))
        printed.append(undisturbed.communicate()[0])
    assert undisturbed.returncode == 0, printed[-1]
    print(f"{len(log)} kills, seed {seed}: {'; '.join(log)}; ended after {time.monotonic() - started:.0f} s")
    status = read_status(folder)
    assert status.state == "done"
    assert status.at_work is None
    assert checksums(folder) == checksums(calm)
    assert_no_secret(folder, *printed)
    return folder


@pytest.mark.ray
def test_a_killed_pipeline_on_an_object_store_ends_with_the_index_of_an_undisturbed_one(
    tmp_path: Path,
    secret: str,  # noqa: F811
) -> None:
    moments = [("pretrain", "begun"), ("embed", "done"), ("index", "inside")]
    check(tmp_path, secret, moments, seed=0, evaluate=None, questions=None)


@pytest.mark.prove
def test_kills_at_each_boundary_and_inside_each_stage_change_no_checksum(
    tmp_path: Path,
    secret: str,  # noqa: F811
) -> None:
    moments = [(stage, moment) for stage in FOLDERS for moment in ("begun", "inside", "done")]
    folder = check(tmp_path, secret, moments, seed=0)
    # And the last stage: a server answers from another index, over the same embeddings.
    other = str(tmp_path / "other")
    cli(["index", f"{folder}/embeddings", "--output", other, "--m", "8"], standalone_mode=False)
    config = write_pipeline(tmp_path / "killed.yaml", folder, serve={})
    with Running(other, f"{folder}/run/best") as server:
        server.wait_ready()
        for moment in (("serve", "begun"), ("serve", "done")):
            command = [*dying(moment), "pipeline", str(config)]
            done = subprocess.run(command, cwd=ROOT, env=server.env, capture_output=True, text=True, check=False)
            assert done.returncode == -9, done.stderr
        process, reached = run_until([*COMMAND, "pipeline", str(config)], lambda: False)
        assert not reached and process.returncode != 0  # without the variables of the server there is none
        assert "no server of yours runs" in read_status(folder).stages[-1].failure.error  # type: ignore[union-attr]
        finish(config, env=server.env)
        told = requests.get(f"{server.url}/v1/indexes", timeout=60).json()["indexes"]
        assert [one["fingerprint"] for one in told] == [read_index_manifest(f"{folder}/index").fingerprint]
    assert_no_secret(folder)
