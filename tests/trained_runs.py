"""Runs of pretraining that are disturbed: their settings, and what they left, to be compared."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

SETTINGS = (
    "batch.global_batch_size=24",
    "data.lanes=12",
    "checkpoint_every_s=0.3",
    "log_rows=true",
    "log_every_s=1",
    "trackers=[]",
    "objectives={mlm: 0.3, bsr: 0.7, pda: 1.0, num_prototypes: 16}",
    "model.projection_dim=32",
    "model.protein.config.hidden_size=16",
    "model.text.config.hidden_size=16",
    "model.text.config.vocab_size=300",
)
"""Of a small run with all objectives, whose rows are logged."""


def num_rows_logged(folder: Path) -> int:
    """Steps in the longest row logs of each life, added up."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("rows/*-0.jsonl"))


def last_weights(folder: Path) -> str:
    newest = max((folder / "checkpoints").iterdir())
    return hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def rows_by_step(folder: Path) -> dict[int, Counter[str]]:
    """The accessions of each step that counts: of the last life that made it, all workers together."""
    lives: dict[str, dict[int, Counter[str]]] = {}
    for path in sorted(folder.glob("rows/*.jsonl"), key=lambda path: int(path.name.split("-")[0])):
        for line in path.read_text().splitlines():
            if line.endswith("}"):  # the last one may be cut off
                entry = json.loads(line)
                lives.setdefault(entry["life"], {}).setdefault(entry["step"], Counter()).update(entry["accessions"])
    steps: dict[int, Counter[str]] = {}
    for life in lives.values():
        first = min(life)
        steps = {step: rows for step, rows in steps.items() if step < first} | life
    return steps


def assert_same_rows(found: Path, wanted: Path) -> None:
    steps = rows_by_step(found)
    assert sorted(steps) == list(range(1, len(steps) + 1))
    assert steps == rows_by_step(wanted)


def history(folder: Path) -> list[dict[str, Any]]:
    """The measures of all epochs, without the time that they took."""
    entries = json.loads((folder / "metrics.json").read_text())["history"]
    return [{**entry, "seconds": None} for entry in entries]


def assert_same_run(found: Path, wanted: Path) -> None:
    """Weights are equal to the last bit, measures too, and each step had the same rows."""
    assert last_weights(found) == last_weights(wanted)
    best = [hashlib.sha256((run / "best/model.safetensors").read_bytes()).hexdigest() for run in (found, wanted)]
    assert best[0] == best[1]
    assert_same_rows(found, wanted)
    assert history(found) == history(wanted)
