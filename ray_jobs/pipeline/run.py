"""A pipeline: its stages one after the other, each by the function of its own command."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from protclip import files
from protclip.checkpoint_names import is_name
from protclip.embeddings.embed import OWN_FILES as EMBED_FILES
from protclip.embeddings.job import with_paths as embed_paths
from protclip.errors import ConfigError, DataError, OtherRunError
from protclip.evaluation.evaluate import OWN_FILES as EVALUATE_FILES
from protclip.evaluation.reading import check_names
from protclip.index.build import OWN_FILES as INDEX_FILES
from protclip.manifest import FILE_NAME, WORK_FOLDER, claim_folder, has_results, read_manifest
from protclip.model.record import read_checkpoint_fingerprint
from protclip.occupied import occupied
from protclip.pipeline.claims import Step, claim_of, fingerprint, next_step, write_pipeline
from protclip.pipeline.outcome import counted
from protclip.pipeline.records import (
    SERVE,
    Failure,
    StageRecord,
    manifest_path,
    mark_of,
    read_record,
    record_path,
    spelled,
    stamp,
    write_record,
)
from protclip.pipeline.settings import PipelineConfig, SwapConfig
from protclip.protanno.curate import OWN_FILES as CURATE_FILES
from protclip.protanno.curate import with_paths as curate_paths
from protclip.terminal import echo
from ray_jobs.cluster import resolve_input, resolve_output
from ray_jobs.curate.main import run_curate
from ray_jobs.embed.main import run_embed
from ray_jobs.evaluate.main import run_evaluate, train_workers
from ray_jobs.evaluate.main import with_paths as evaluate_paths
from ray_jobs.index.main import run_index
from ray_jobs.index.main import with_paths as index_paths
from ray_jobs.pretrain.lanes import TASK_CPUS
from ray_jobs.pretrain.run import OWN_FILES as PRETRAIN_FILES
from ray_jobs.pretrain.run import pretrain, with_absolute_paths
from ray_jobs.workers import make_room

RUNS: dict[str, Callable[[Any], None]] = {
    "curate": run_curate,
    "pretrain": pretrain,
    "evaluate": run_evaluate,
    "embed": run_embed,
    "questions": run_embed,
    "index": run_index,
}
PATHS: dict[str, Callable[[Any], Any]] = {
    "curate": lambda config: curate_paths(config, resolve_input, resolve_output),
    "pretrain": with_absolute_paths,
    "evaluate": evaluate_paths,
    "embed": lambda config: embed_paths(config, resolve_input, resolve_output),
    "questions": lambda config: embed_paths(config, resolve_input, resolve_output),
    "index": index_paths,
    SERVE: lambda config: config,
}
"""What makes the paths of a stage mean the same in every folder."""
OWN_FILES = {
    "curate": CURATE_FILES,
    "pretrain": PRETRAIN_FILES,
    "evaluate": EVALUATE_FILES,
    "embed": EMBED_FILES,
    "questions": EMBED_FILES,
    "index": INDEX_FILES,
}
KINDS = {
    "curate": "pairs",
    "pretrain": "checkpoint",
    "embed": "embeddings",
    "questions": "embeddings",
    "index": "index",
}
"""Of the manifest of each stage whose output is more than a report."""


def with_paths(config: PipelineConfig) -> PipelineConfig:
    """The same with paths that mean the same in every folder.

    Raises:
        ConfigError: for a relative path inside a submitted job.
        DataError: if a file that is to be curated is not there.
    """
    return replace(config, **{name: PATHS[name](stage) for name, stage in config.stages().items()})


def run_pipeline(config: PipelineConfig, *, overwrite: bool = False) -> None:
    """Do the stages that are not done; one that was killed goes on where it was.

    Args:
        config: of the stages, with absolute paths.
        overwrite: make stages again whose finished output is of other settings or inputs.

    Raises:
        ProtclipError: of the stage that failed; the record of the stage has it too.
    """
    started = time.monotonic()
    _check(config)
    with occupied(config.folder):
        todo = list(config.stages())
        while todo and _skips(config, todo[0], overwrite=overwrite):
            echo(f"pipeline: {todo.pop(0)} is done already")
        write_pipeline(config)  # not before: settings that are refused change nothing
        _make_room(config, todo)
        for stage in todo:
            _do(config, stage, overwrite=overwrite)
    seconds = time.monotonic() - started
    echo(f"pipeline: {len(todo)} of {len(config.stages())} stages, {seconds:.0f} s → {config.folder}")


def plan(config: PipelineConfig, *, overwrite: bool = False) -> dict[str, str]:
    """What a run would do with each stage, in words; nothing is written."""
    _check(config)
    found: dict[str, str] = {}
    words = {"skip": "done", "commit": "done", "begin": "to do", "clear": "to make again"}
    for stage in config.stages():
        before = all(word == "done" for word in found.values())
        found[stage] = words[_next(config, stage, overwrite=overwrite)[0]] if before else "to do, after those before it"
    return found


def _check(config: PipelineConfig) -> None:
    """Refuse what later stages would refuse after hours of work.

    Raises:
        ConfigError: for a task that there is not.
        CheckpointError: if a checkpoint from elsewhere is missing or damaged.
    """
    given = [stage.checkpoint for stage in (config.embed, config.questions) if stage is not None]
    if config.evaluate is not None:
        check_names(config.evaluate)
        given += config.evaluate.checkpoints
    for checkpoint in given:
        if not checkpoint.startswith(f"{config.folder}/") and not is_name(checkpoint):
            read_checkpoint_fingerprint(checkpoint)


def _skips(config: PipelineConfig, stage: str, *, overwrite: bool) -> bool:
    return _next(config, stage, overwrite=overwrite)[0] == "skip"


def _next(config: PipelineConfig, stage: str, *, overwrite: bool) -> tuple[Step, StageRecord | None, dict[str, Any]]:
    """What has to be done for a stage, its last record, and what decides on its result now."""
    record, claim = read_record(config.folder, stage), claim_of(config, stage)
    if stage == SERVE:
        done = record is not None and record.state == "done" and record.claim == claim
        return "skip" if done else "begin", record, claim
    place, output = config.output(stage), mark_of(manifest_path(config.folder, stage))
    is_begun = output is None and has_results(place)
    step = next_step(stage, record, claim, output=output, is_begun=is_begun, place=place, overwrite=overwrite)
    if step == "skip" and stage in KINDS:
        step = _look(config, stage, overwrite=overwrite)
    served = read_record(config.folder, SERVE) if step == "clear" and stage != "evaluate" else None
    if served is not None and served.state != "failed":
        raise ConfigError(
            f"{stage}: {place} would be made again, and the index of this pipeline was given to a server at "
            f"{served.resumed}; a served index is never changed. Give the pipeline another folder."
        )
    return step, record, claim


def _look(config: PipelineConfig, stage: str, *, overwrite: bool) -> Step:
    """What follows where all that the manifest of a finished stage lists has to be there, by name and size.

    Raises:
        ConfigError: if something is missing or cut short, and may not be made again.
    """
    try:
        read_manifest(manifest_path(config.folder, stage).removesuffix(f"/{FILE_NAME}"), KINDS[stage])
    except DataError as error:
        if not overwrite:
            raise ConfigError(f"{stage}: {error} --overwrite makes it again, and what comes of it.") from error
        return "clear"
    return "skip"


def _do(config: PipelineConfig, stage: str, *, overwrite: bool) -> None:
    """Do a stage, with its record before and after."""
    step, before, claim = _next(config, stage, overwrite=overwrite)
    if step == "skip":
        echo(f"pipeline: {stage} is done already")
        return
    if step == "clear":
        _clear(config, stage)
    now = stamp(datetime.now(UTC))
    record = StageRecord(state="begun", claim=claim, fingerprint=fingerprint(claim), started=now, resumed=now)
    if before is not None and before.claim == claim and before.state != "done":
        record = replace(before, state="begun", resumed=now, num_starts=before.num_starts + 1, software=record.software)
    if step != "commit":
        echo(f"pipeline: {stage} …")
        write_record(config.folder, stage, record)
        try:
            if stage == SERVE:
                assert config.serve is not None
                _swap(config.serve, config.output("index"))
            else:
                _run(config, stage, overwrite=overwrite)
        except Exception as error:
            failure = Failure(when=stamp(datetime.now(UTC)), error=spelled(error))
            record = replace(record, state="failed", failure=failure, num_failures=record.num_failures + 1)
            with contextlib.suppress(Exception):  # of a store that is out of reach: the first error is told
                write_record(config.folder, stage, record)
            raise
    record = replace(
        record,
        state="done",
        ended=stamp(datetime.now(UTC)),
        output=None if stage == SERVE else mark_of(manifest_path(config.folder, stage)),
        counted={} if stage == SERVE else counted(config.folder, stage),
    )
    write_record(config.folder, stage, record)


def _run(config: PipelineConfig, stage: str, *, overwrite: bool) -> None:
    """Do a stage, or go on with it; anew where it was begun by other software or with other paths, and that may be."""
    try:
        RUNS[stage](getattr(config, stage))
    except OtherRunError:
        if not overwrite:
            raise
        _empty(config, stage)
        RUNS[stage](getattr(config, stage))


def _clear(config: PipelineConfig, stage: str) -> None:
    """Remove what a stage left, and its record."""
    _empty(config, stage)
    files.remove(record_path(config.folder, stage))


def _empty(config: PipelineConfig, stage: str) -> None:
    """Remove what a stage left in its folder, and nothing else there; its manifest first."""
    folder = config.output(stage)
    with occupied(folder):
        files.remove(manifest_path(config.folder, stage))
        claim_folder(folder, [*OWN_FILES[stage], WORK_FOLDER], overwrite=True)


def _make_room(config: PipelineConfig, todo: list[str]) -> None:
    """Start Ray for the stage that needs most of it, where one trains: a smaller Ray could not grow for it."""
    needs = []
    if "pretrain" in todo and config.pretrain is not None:
        needs.append((config.pretrain.workers, TASK_CPUS))
    if "evaluate" in todo and config.evaluate is not None and (workers := train_workers(config.evaluate)) is not None:
        needs.append((workers, 0.0))
    for workers, beside in sorted(needs, key=lambda need: -need[0].num * (need[0].resources.get("CPU", 1.0) + need[1])):
        make_room(workers, cpus_beside=beside)


def _swap(config: SwapConfig, index: str) -> None:
    """Have the server answer from an index, by the command, for its Ray may be another one than ours.

    Raises:
        ConfigError: what the command says.
    """
    port = [] if config.port is None else ["--port", str(config.port)]
    command = [sys.executable, "-m", "protclip", "swap-index", config.name, index, *port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"swap-index ended with status {done.returncode}"]
        raise ConfigError(lines[-1].removeprefix("ConfigError: "))
    echo(done.stdout.strip())
