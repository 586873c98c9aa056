"""A status for people: lines for a terminal, and one HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from protclip.pipeline.status import StageStatus, Status
from protclip.reporting.page import page, table
from protclip.terminal import printable

HEADER = ["stage", "state", "committed", "time", "time left"]


def status_text(status: Status) -> str:
    """Aligned columns, and below them checkpoints and failures."""
    rows = [HEADER, *(_row(stage) for stage in status.stages)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [note.replace("\n", "\n  ") for note in _notes(status)]  # what an error says begins no line of its own
    return "\n".join([_head(status), "", *lines, *(["", *notes] if notes else [])])


def status_page(status: Status) -> str:
    """The same as HTML, one file that needs neither network nor script."""
    facts = {"State": status.state, "Looked at": status.now}
    if status.at_work is not None:
        facts["At work"] = f"host {status.at_work.host}, process {status.at_work.pid}, since {status.at_work.since}"
    cells = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(status))
    bars = "".join(
        f"<dt>{stage.stage}</dt><dd><progress value='{done}' max='{total}'></progress></dd>"
        for stage in status.stages
        for done, total in [_share(stage)]
    )
    body = (
        f"<h1>{html.escape(status.folder)}</h1><dl>{cells}</dl><h2>Stages</h2><dl>{bars}</dl>"
        f"{table([HEADER, *(_row(stage) for stage in status.stages)])}"
        + (f"<h2>Checkpoints and failures</h2><ul>{notes}</ul>" if notes else "")
    )
    return page(status.folder.rsplit("/", 1)[-1], body)


def _head(status: Status) -> str:
    at_work = status.at_work
    who = "" if at_work is None else f" (host {at_work.host}, process {at_work.pid}, since {at_work.since})"
    return f"{status.folder}: {status.state}{who}"


def _row(stage: StageStatus) -> list[str]:
    progress = stage.progress
    committed = "" if stage.counted is None or stage.state != "done" else _counts(stage.counted)
    if progress is not None:
        committed = f"{progress.done:,}" + ("" if progress.total is None else f" of {progress.total:,}")
        committed = f"{committed} {progress.unit}"
    left = None if progress is None else progress.left_s
    return [
        stage.stage,
        stage.state,
        committed,
        "" if stage.seconds is None else tqdm.format_interval(stage.seconds),
        "" if left is None else tqdm.format_interval(left),
    ]


def _notes(status: Status) -> list[str]:
    lines = []
    for stage in status.stages:
        if (last := stage.checkpoint) is not None:
            age = "" if last.age_s is None else f", {tqdm.format_interval(max(0.0, last.age_s))} old"
            lines.append(f"{stage.stage}: last checkpoint {last.path}, step {last.step:,}{age}")
        if stage.num_starts > 1:
            lines.append(f"{stage.stage}: begun {stage.num_starts} times")
        if (failure := stage.failure) is not None:
            lines.append(f"{stage.stage}: failed {_times(stage.num_failures)}, last at {failure.when}: {failure.error}")
    return lines


def _counts(counted: Mapping[str, Any]) -> str:
    values = (f"{value:,}" if isinstance(value, int) else str(value) for value in counted.values())
    return printable(
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in zip(counted, values, strict=True))
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _share(stage: StageStatus) -> tuple[int, int]:
    """What is committed of how much."""
    if stage.state == "done":
        return 1, 1
    progress = stage.progress
    if progress is None or not progress.total:
        return 0, 1
    return progress.done, progress.total
