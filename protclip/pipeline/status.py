"""How far a pipeline is, or a single stage: read from its folder alone, while it is made or after a kill."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from protclip import files
from protclip.checked import Count, checked
from protclip.errors import DataError, ProtclipError
from protclip.manifest import FILE_NAME, kind_of_folder, read_claim, what_is_there, work_folder
from protclip.occupied import AtWork, at_work
from protclip.pipeline.outcome import counted_in
from protclip.pipeline.records import (
    BEST,
    FOLDERS,
    PIPELINE_FILE,
    RECORDS,
    SERVE,
    STAGES,
    Failure,
    manifest_path,
    read_record,
)
from protclip.train.checkpoints import committed
from protclip.units import TOTAL

State = Literal["done", "running", "stopped", "failed", "waiting", "missing"]
"""stopped: begun, and nothing is at work there. missing: done, and its output is gone."""

UNITS = {
    "curate": (("read", "blocks read"), ("merge", "shards merged"), ("finish", "shards written")),
    "evaluate": (("outcomes", "predictions"), ("leaks", "searches for leaks")),
    "embed": (("parts", "parts"),),
    "questions": (("parts", "parts"),),
    "index": (
        ("building", "subindexes built"),
        ("sampling", "sampled"),
        ("measuring", "measured"),
    ),
}
"""Folders of reports in the work folder of a stage, in the order in which they are filled, and what they count."""
_STAGE_OF_KIND = {"pairs": "curate", "embeddings": "embed", "index": "index", "evaluation": "evaluate"}


_STEP = re.compile("step-[0-9]{9,15}")
"""The name of a checkpoint's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Metrics:
    """What is read of a run's metrics."""

    total_steps: Count | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The last one of a training that is committed."""

    path: str
    step: int
    written: str | None
    """ISO 8601, UTC; None where the storage does not know."""
    age_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How much of a stage is committed."""

    unit: str
    """What is counted."""
    done: int
    total: int | None
    """None while that is not known."""
    left_s: float | None
    """For the rest, by the pace since the last start; None where that is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStatus:
    """A stage, as its folder tells."""

    stage: str
    state: State
    folder: str | None
    started: str | None = None
    """ISO 8601, UTC, as all times."""
    ended: str | None = None
    seconds: float | None = None
    """From the start to the end, or until now where it is running."""
    num_starts: int = 0
    progress: Progress | None = None
    checkpoint: Checkpoint | None = None
    counted: dict[str, Any] | None = None
    """Of a finished stage."""
    num_failures: int = 0
    failure: Failure | None = None
    """The last one, even of a stage that was finished later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A pipeline, or a single stage."""

    folder: str
    state: State
    now: str
    at_work: AtWork | None
    """The run that is at work there."""
    stages: tuple[StageStatus, ...]


def read_status(folder: str, now: datetime | None = None) -> Status:
    """How far a pipeline is, or a stage whose folder this is.

    Args:
        folder: path or URL of a pipeline, pairs, a run of pretrain, an evaluation, embeddings or an index.
        now: None for the clock's.

    Raises:
        DataError: if nothing is there, or it is none of these.
    """
    folder, now = folder.rstrip("/"), now or datetime.now(UTC)
    holder = at_work(folder)
    if files.exists(files.join(folder, PIPELINE_FILE)):
        files.list_folder(files.join(folder, RECORDS))  # refuses without permission, where no record would seem there
        stages = tuple(_stage(folder, name, holder, now) for name in _stages_of(folder))
    else:
        stages = (_single(folder, holder, now),)
    return Status(
        folder=folder, state=_overall([stage.state for stage in stages]), now=_iso(now), at_work=holder, stages=stages
    )


def _stages_of(folder: str) -> list[str]:
    path = files.join(folder, PIPELINE_FILE)
    told = files.read_json(path)
    stages = told.get("stages") if isinstance(told, dict) else None
    if not isinstance(stages, dict) or not stages.keys() <= set(STAGES):
        raise DataError(f"{path}: does not say the stages of a pipeline; give the pipeline's command again.")
    return [name for name in STAGES if name in stages]


def _overall(states: Sequence[State]) -> State:
    """Of all stages together."""
    for state in ("failed", "running", "stopped", "missing"):
        if state in states:
            return state
    if all(state == "done" for state in states):
        return "done"
    return "waiting" if all(state == "waiting" for state in states) else "stopped"


def _stage(folder: str, stage: str, holder: AtWork | None, now: datetime) -> StageStatus:
    """A stage of a pipeline."""
    record = read_record(folder, stage)
    output = None if stage == SERVE else files.join(folder, FOLDERS[stage])
    if record is None:
        return StageStatus(stage=stage, state="waiting", folder=output)
    state: State = "stopped" if holder is None else "running"
    if record.state == "failed":
        state = "failed"
    if record.state == "done":
        state = "done" if stage == SERVE or files.exists(manifest_path(folder, stage)) else "missing"
    end = record.ended if record.state == "done" else _iso(now) if state == "running" else None
    progress = checkpoint = None
    if output is not None and state not in ("done", "missing"):
        progress, checkpoint = _progress(output, stage, record.resumed, state, now)
    elif stage == "pretrain" and output is not None:
        checkpoint = _checkpoint(output, now)
    return StageStatus(
        stage=stage,
        state=state,
        folder=output,
        started=record.started,
        ended=record.ended,
        seconds=None if end is None else _seconds(record.started, end),
        num_starts=record.num_starts,
        progress=progress,
        checkpoint=checkpoint,
        counted=record.counted,
        num_failures=record.num_failures,
        failure=record.failure,
    )


def _single(folder: str, holder: AtWork | None, now: datetime) -> StageStatus:
    """A stage by itself, in whose folder nothing says when it was begun but the run that is at work there."""
    stage, is_finished = _which(folder)
    state: State = "done" if is_finished else "stopped" if holder is None else "running"
    since = None if holder is None else holder.since
    progress = checkpoint = None
    if not is_finished:
        progress, checkpoint = _progress(folder, stage, since, state, now)
    elif stage == "pretrain":
        checkpoint = _checkpoint(folder, now)
    return StageStatus(
        stage=stage,
        state=state,
        folder=folder,
        started=since,
        seconds=None if since is None else _seconds(since, _iso(now)),
        num_starts=1,
        progress=progress,
        checkpoint=checkpoint,
        counted=counted_in(folder, stage) if is_finished else None,
    )


def _which(folder: str) -> tuple[str, bool]:
    """The stage whose folder this is, and whether it is finished.

    Raises:
        DataError: if it is of none.
    """
    if files.exists(path := files.join(folder, FILE_NAME)):
        manifest = files.read_json(path)
        kind = manifest.get("kind") if isinstance(manifest, dict) else None
        if not isinstance(kind, str) or kind not in _STAGE_OF_KIND:
            raise DataError(f"{folder}: is {kind_of_folder(manifest)}, and no stage's; name the folder of a stage.")
        return _STAGE_OF_KIND[kind], True
    if files.exists(files.join(folder, "config.yaml")) and files.exists(files.join(folder, "pairs.json")):
        return "pretrain", files.exists(files.join(folder, BEST, FILE_NAME))
    claim = read_claim(folder)
    if not isinstance(claim, dict):
        raise DataError(
            f"{folder}: {what_is_there(folder)}; status is of the folder of a pipeline, or of a stage that was begun."
        )
    marks = {"model_fingerprint": "embed", "embeddings": "index", "tasks": "evaluate"}
    return next((stage for key, stage in marks.items() if key in claim), "curate"), False


def _progress(
    output: str, stage: str, since: str | None, state: State, now: datetime
) -> tuple[Progress | None, Checkpoint | None]:
    """What is committed of an unfinished stage."""
    started = None if since is None else datetime.fromisoformat(since)
    if stage == "pretrain":
        return _steps(output, started, state, now)
    claim = read_claim(output)
    if claim is None:
        return None, None
    work = work_folder(output, claim)
    totals = {name for name in files.list_folder(work) if name.endswith(TOTAL)}
    found: Progress | None = None
    for folder, unit in UNITS[stage]:
        place = files.join(work, folder)
        times = {name: when for name, when in files.times(place).items() if name.endswith(".json")}
        total: int | None = None
        if f"{folder}{TOTAL}" in totals:
            total = _number(files.join(work, f"{folder}{TOTAL}"), "units")
        if stage == "curate" and folder == "read":
            total = _num_blocks(place, times.keys(), _num_inputs(output, claim))
            times = {name: when for name, when in times.items() if "-" in name}
        if not times and total is None:
            continue
        left = None if total is None else _left_s(list(times.values()), total, started, state, now)
        found = Progress(unit=unit, done=len(times), total=total, left_s=left)
    return found, None


def _num_blocks(folder: str, names: Any, num_inputs: int) -> int | None:
    """Blocks of all inputs; None where one of them is not cut to its end."""
    ends = [name for name in names if "-" not in name]
    if len(ends) < num_inputs:
        return None
    return sum(_number(files.join(folder, name), "blocks") for name in ends)


def _num_inputs(output: str, claim: Any) -> int:
    """Of curate, by the claim of its run."""
    inputs = claim.get("inputs") if isinstance(claim, dict) else None
    if not isinstance(inputs, list | dict):
        raise DataError(f"{output}: its unfinished run does not say its inputs; restore the folder or make it again.")
    return len(inputs)


def _number(path: str, key: str) -> int:
    """A number that a file of a stage says."""
    told = files.read_json(path)
    return checked(dict[str, Count], {key: told.get(key)} if isinstance(told, dict) else told, path)[key]


def _steps(
    run_dir: str, since: datetime | None, state: State, now: datetime
) -> tuple[Progress | None, Checkpoint | None]:
    """Steps of a training whose checkpoint is committed."""
    path = files.join(run_dir, "metrics.json")
    total = checked(_Metrics, files.read_json(path), path).total_steps if files.exists(path) else None
    folders = _checkpoints(run_dir)
    times = [_modified(files.join(folder, FILE_NAME)) for folder in folders]
    checkpoint = _checkpoint(run_dir, now)
    done = 0 if checkpoint is None else checkpoint.step
    left = None
    points = [(_step_of(folder), when) for folder, when in zip(folders, times, strict=True) if when is not None]
    mine = [point for point in points if since is not None and point[1] >= since]
    if since is not None and mine and total is not None:
        before = max([step for step, when in points if when < since], default=0)
        first = mine[0] if len(mine) > 1 else (before, since)
        pace = (mine[-1][0] - first[0]) / max(1e-9, (mine[-1][1] - first[1]).total_seconds())
        if pace > 0:
            left = _rest((total - done) / pace, mine[-1][1], state, now)
    return Progress(unit="steps", done=done, total=total, left_s=left), checkpoint


def _checkpoint(run_dir: str, now: datetime) -> Checkpoint | None:
    """The last checkpoint of a run."""
    folders = _checkpoints(run_dir)
    if not folders:
        return None
    written = _modified(files.join(folders[-1], FILE_NAME))
    return Checkpoint(
        path=folders[-1],
        step=_step_of(folders[-1]),
        written=None if written is None else _iso(written),
        age_s=None if written is None else round((now - written).total_seconds(), 1),
    )


def _checkpoints(run_dir: str) -> list[str]:
    """The finished checkpoints of a run, oldest first, without copies that somebody put beside them."""
    return [path for path in committed(run_dir) if _STEP.fullmatch(path.rsplit("/", 1)[-1])]


def _left_s(
    times: Sequence[datetime | None], total: int, since: datetime | None, state: State, now: datetime
) -> float | None:
    """Seconds for the units that are missing, by the pace since the last start; some storage tells no times."""
    mine = sorted(when for when in times if when is not None and since is not None and when >= since)
    if len(times) >= total:
        return 0.0
    if len(mine) < 2:
        return None
    pace = (len(mine) - 1) / max(1e-9, (mine[-1] - mine[0]).total_seconds())
    return _rest((total - len(times)) / pace, mine[-1], state, now)


def _rest(seconds: float, last: datetime, state: State, now: datetime) -> float:
    """Less what has passed since the last commit, where it goes on."""
    passed = (now - last).total_seconds() if state == "running" else 0.0
    return round(max(0.0, seconds - passed), 1)


def _modified(path: str) -> datetime | None:
    try:
        when = files.modified(path)
    except (OSError, ProtclipError):  # it was removed meanwhile
        return None
    return when if when is None or when.tzinfo is not None else when.replace(tzinfo=UTC)


def _step_of(checkpoint: str) -> int:
    return int(checkpoint.rsplit("-", 1)[-1])


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds")
