"""What decides on the result of a stage, and what follows for a pipeline that is given again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from protclip import files
from protclip.checkpoint_names import is_name
from protclip.config_file import MAY_DIFFER
from protclip.errors import ConfigError, DataError
from protclip.manifest import FILE_NAME, differences
from protclip.pipeline.records import KIND, PIPELINE_FILE, StageRecord, mark_of
from protclip.pipeline.settings import PipelineConfig, plain
from protclip.version import __version__

Step = Literal["skip", "begin", "commit", "clear"]

_INPUTS = {
    "curate": ("inputs", "previous"),
    "pretrain": (),
    "evaluate": ("checkpoints", "data", "pairs"),
    "embed": ("inputs", "checkpoint", "previous"),
    "questions": ("inputs", "checkpoint", "previous"),
    "index": ("embeddings", "queries", "previous", "ids"),
    "serve": (),
}
"""Settings that are paths of what a stage reads."""
_NO_MATTER = {
    "curate": ("output", "max_bad_fraction", "max_textless_fraction"),
    "pretrain": MAY_DIFFER,
    "evaluate": ("output", "workers", "use_gpu"),
    "embed": ("output", "workers"),
    "questions": ("output", "workers"),
    "index": ("output", "max_bad_fraction"),
    "serve": (),
}
"""Settings that decide nothing about the result."""


def write_pipeline(config: PipelineConfig) -> None:
    """Write what the pipeline is, for who looks at the folder alone."""
    stages = {name: plain(stage) for name, stage in config.stages().items()}
    files.write_json(
        files.join(config.folder, PIPELINE_FILE),
        {"kind": KIND, "schema_version": 1, "software": f"protclip {__version__}", "stages": stages},
    )


def claim_of(config: PipelineConfig, stage: str) -> dict[str, Any]:
    """What decides on the result of a stage, as JSON values: its settings, and marks of the content of its inputs.

    Paths are no part of it: a folder may be moved. The inputs have to be there.

    Raises:
        DataError: if an input is not there.
    """
    settings = getattr(config, stage)
    inputs: dict[str, Any] = {}
    for name in _INPUTS[stage]:
        given = getattr(settings, name)
        if given:
            inputs[name] = _mark(given) if isinstance(given, str) else [_mark(one) for one in given]
    if stage == "pretrain":
        inputs["pairs"] = _mark(settings.data.pairs)
    if stage == "serve":
        inputs["index"] = _mark(config.output("index"))
    left_out = (*_INPUTS[stage], *_NO_MATTER[stage])
    claim = {"settings": _without(plain(settings), left_out), "inputs": inputs}
    return dict(json.loads(json.dumps(claim)))


def fingerprint(claim: Mapping[str, Any]) -> str:
    """SHA-256 of a claim, as hex."""
    return hashlib.sha256(json.dumps(claim, sort_keys=True).encode()).hexdigest()


def next_step(
    stage: str,
    record: StageRecord | None,
    claim: Mapping[str, Any],
    *,
    output: str | None,
    is_begun: bool,
    place: str,
    overwrite: bool,
) -> Step:
    """What has to be done for a stage.

    Args:
        stage: its name.
        record: of its last run.
        claim: of now.
        output: mark of what is there; None where the output is unfinished or missing.
        is_begun: whether there are results of an unfinished run.
        place: of the output, for messages.
        overwrite: whether an output of other settings or inputs may be replaced.

    Returns:
        skip: it is done. begin: begin it, or go on where it was. commit: only the record is missing, for a kill came
        between. clear: remove what is there, then begin.

    Raises:
        ConfigError: if what is there is of other settings or inputs, or was changed since.
    """
    same = record is not None and record.claim == claim
    if output is None and (same or not is_begun):
        return "begin"
    if record is not None and same and record.state != "done":
        return "commit"
    if record is not None and same and record.output == output:
        return "skip"
    if overwrite:
        return "clear"
    if record is None:
        problem = "holds an output that this pipeline did not make"
    elif same:
        problem = "was changed by something else since the pipeline made it"
    else:
        problem = f"was {'begun' if output is None else 'made'} otherwise ({'; '.join(changes(record.claim, claim))})"
    raise ConfigError(
        f"{stage}: {place} {problem}; give the pipeline another folder, or --overwrite to make this again, and what "
        "comes of it."
    )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two claims differ, in words."""
    found = differences(_flat(before.get("settings", {})), _flat(now["settings"]))
    there, here = before.get("inputs", {}), now["inputs"]
    named = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    return [*found, *(f"other {name}" for name in named)]


def _flat(values: Any, place: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names; what is not there has its default."""
    if not isinstance(values, dict):
        return {place: values}
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{place}.{name}" if place else name)
    return found


def _without(values: Mapping[str, Any], names: tuple[str, ...], place: str = "") -> dict[str, Any]:
    """Nested settings without some, given by their dotted names."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        dotted = f"{place}{name}"
        if dotted in names:
            continue
        inner = _without(value, names, f"{dotted}.") if isinstance(value, dict) else value
        if inner != {} or value == {}:
            kept[name] = inner
    return kept


def _mark(path: str) -> str:
    """A mark of the content of a file or folder."""
    if is_name(path):
        return path
    if (mark := mark_of(files.join(path, FILE_NAME))) is not None:
        return mark
    if files.is_folder(path):
        fs, inner = files.filesystem(path)
        found = fs.find(inner, detail=True)
        content: Any = [[name.removeprefix(inner), entry["size"]] for name, entry in sorted(found.items())]
    else:
        if not (there := [one for one in files.expand(path) if files.exists(one)]):
            raise DataError(f"{path}: does not exist.")
        content = [files.identity(one) for one in there]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
