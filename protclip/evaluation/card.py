"""The scores of an evaluation in the model card of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator

from protclip import files
from protclip.errors import CheckpointError, ConfigError
from protclip.evaluation.report import METRICS
from protclip.evaluation.results import Results
from protclip.manifest import FILE_NAME, describe, read_manifest
from protclip.model.record import KIND

CARD = "README.md"
_SECTION = re.compile(r"## Evaluation\n.*?\n(?=## )", re.DOTALL)
_BEFORE = "## Licence\n"


def add_to_card(checkpoint: str, name: str, results: Results) -> None:
    """Put a section with a model's scores into the card of its folder, in place of an earlier one.

    The folder is whole at any moment: its manifest leaves the card out while that is written.

    Args:
        checkpoint: the folder.
        name: of the model in the results.
        results: of its evaluation.

    Raises:
        CheckpointError: if it is no checkpoint, or has no card of ours.
        ConfigError: if it cannot be written.
    """
    manifest = read_manifest(checkpoint, KIND, error=CheckpointError)
    card, path = files.join(checkpoint, CARD), files.join(checkpoint, FILE_NAME)
    if CARD not in manifest["files"] or _BEFORE not in (text := files.read_text(card)):
        raise CheckpointError(f"{checkpoint}: has no model card with a section on its licence; save the model again.")
    section = "\n".join(_lines(name, results))
    text = _SECTION.sub("", text).replace(_BEFORE, f"{section}\n{_BEFORE}")
    others = {file: entry for file, entry in manifest["files"].items() if file != CARD}
    files.write_json(path, {**manifest, "files": others})
    with files.atomic_write(card) as stream:
        stream.write(text.encode())
    files.write_json(path, {**manifest, "files": {**others, CARD: describe(card)}})


def check_cards(checkpoints: tuple[str, ...]) -> None:
    """Refuse checkpoints that are no folders on this machine, before there is anything to write into their cards.

    Raises:
        ConfigError: naming the first.
    """
    for checkpoint in checkpoints:
        if not files.is_folder(checkpoint):
            raise ConfigError(f"--card: {checkpoint} is no folder; scores are written into cards of folders alone.")


def _lines(name: str, results: Results) -> Iterator[str]:
    yield "## Evaluation\n"
    yield f"By protclip {results.software}; the 95 % interval is over the rows of the test split.\n"
    yield "| task | metric | score | interval | trivial prediction |"
    yield "|---|---|---|---|---|"
    notes = []
    for task in results.tasks:
        if (score := results.best(task.name, name)) is None:
            continue
        trivial = "" if task.baseline is None else f"{task.baseline:.3f} ({task.baseline_name})"
        star = " \\*" if task.note else ""
        yield (
            f"| {task.title}{star} | {METRICS.get(task.metric, task.metric)} | {score.value:.3f} | {score.low:.3f} to "
            f"{score.high:.3f} | {trivial} |"
        )
        notes += [f"\\* {task.title}: {task.note}"] if task.note else []
    yield from ["", *notes] if notes else []
    yield ""
