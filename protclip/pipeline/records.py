"""What a pipeline writes of itself into its folder.

FOLDER/pipeline.json          the stages and their settings
FOLDER/stages/curate.json …   of each stage: begun, done or failed, with which settings and inputs, and what came of it
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from protclip import files
from protclip.checked import Count, Time, checked
from protclip.errors import DataError
from protclip.manifest import FILE_NAME
from protclip.model.record import KIND as CHECKPOINT
from protclip.version import __version__

FOLDERS = {
    "curate": "pairs",
    "pretrain": "run",
    "evaluate": "evaluation",
    "embed": "embeddings",
    "questions": "questions",
    "index": "index",
}
"""Each stage that leaves a folder, in order, and its name in the pipeline's folder."""
SERVE = "serve"
STAGES = (*FOLDERS, SERVE)
BEST = "best"
"""In the folder of ``pretrain``: the checkpoint that later stages take."""

PIPELINE_FILE = "pipeline.json"
RECORDS = "stages"
KIND = "pipeline"
MAX_ERROR_CHARS = 2000

State = Literal["begun", "done", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """How a stage failed."""

    when: str
    """ISO 8601, UTC."""
    error: str
    """With its type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """What is known of a stage."""

    state: State
    claim: dict[str, dict[str, Any]]
    """Settings and inputs: what decides on the result."""
    fingerprint: str
    """SHA-256 of the claim."""
    started: Time
    """When the stage was first begun with this claim, as ISO 8601, UTC."""
    resumed: Time
    """When it was begun last."""
    num_starts: Count = 1
    ended: Time | None = None
    output: str | None = None
    """As ``mark_of`` says it of the output."""
    counted: dict[str, Any] | None = None
    """What the output holds."""
    num_failures: Count = 0
    failure: Failure | None = None
    """The last one."""
    software: str = f"protclip {__version__}"


def record_path(folder: str, stage: str) -> str:
    """Where the record of a stage is."""
    return files.join(folder, RECORDS, f"{stage}.json")


def read_record(folder: str, stage: str) -> StageRecord | None:
    """The record of a stage; None where there is none.

    Raises:
        DataError: if it is damaged.
    """
    path = record_path(folder, stage)
    if not files.exists(path):
        return None
    remedy = "Restore the file, or remove it and give --overwrite, which makes the stage again"
    text = files.read_text(path)
    try:
        told = files.parse_json(text, path)
    except DataError as error:
        raise DataError(f"{error} {remedy}.") from error
    return checked(StageRecord, told, path, remedy=remedy)


def write_record(folder: str, stage: str, record: StageRecord) -> None:
    """Write it atomically."""
    files.write_json(record_path(folder, stage), asdict(record))


def manifest_path(folder: str, stage: str) -> str:
    """The manifest that a stage writes last, in the pipeline's folder."""
    below = (BEST,) if stage == "pretrain" else ()
    return files.join(folder, FOLDERS[stage], *below, FILE_NAME)


def mark_of(manifest: str) -> str | None:
    """A mark of what a finished folder holds: of a checkpoint its fingerprint, for its card may get scores later; of
    others the SHA-256 of the manifest.

    Args:
        manifest: its path.

    Returns:
        None where there is none: the folder is unfinished or missing. A damaged one has a mark too, of no finished run.
    """
    if not files.exists(manifest):
        return None
    try:
        told = files.read_json(manifest)
    except DataError:
        told = None
    if isinstance(told, dict) and told.get("kind") == CHECKPOINT and isinstance(told.get("fingerprint"), str):
        return str(told["fingerprint"])
    return files.sha256(manifest)


def spelled(error: BaseException) -> str:
    """An error as a record has it."""
    return f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]


def stamp(now: datetime) -> str:
    """A time as records have it."""
    return now.isoformat(timespec="seconds")
