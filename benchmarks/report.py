"""What a benchmark leaves behind: a results file that says what was run on what, and its claims."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protclip.reporting.hardware import processor

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One number that a benchmark is run for."""

    claim: str
    value: float
    target: float | None = None
    """What is aimed at; None for a number that is reported as it is."""
    unit: str


def write_results(what: str, claims: Sequence[Claim], figures: Mapping[str, Any], tables: str, *, quick: bool) -> Path:
    """Write ``results/<what>_<hardware>_<yyyymm>.json`` and ``.md``, then print the claims, a JSON object a line.

    Args:
        what: name of the benchmark.
        claims: its numbers.
        figures: everything that was measured, as JSON values.
        tables: the same for readers, as Markdown.
        quick: a quick run is written beside the full one, under a name of its own.

    Returns:
        The Markdown file.
    """
    now = datetime.now(UTC)
    header = {"date": now.date().isoformat(), "command": _command(), "commit": _commit(), **hardware()}
    stem = f"{what}_{hardware()['label']}_{now:%Y%m}{'_quick' if quick else ''}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {**header, "claims": [asdict(claim) for claim in claims], **figures}
    (RESULTS / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [f"# {what}", "", *(f"- {name}: {value}" for name, value in header.items()), ""]
    lines += ["| claim | value | target | unit |", "|---|---|---|---|"]
    lines += [f"| {c.claim} | {c.value:.4g} | {'–' if c.target is None else c.target} | {c.unit} |" for c in claims]
    path = RESULTS / f"{stem}.md"
    path.write_text("\n".join([*lines, "", tables.strip()]) + "\n")
    for claim in claims:
        print(json.dumps(asdict(claim)))
    return path


def hardware() -> dict[str, Any]:
    """The machine, in words; ``label`` is for file names."""
    import torch  # not above: a benchmark of memory would measure it

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
        label = gpu.lower().replace(" ", "-")
    else:
        gpu, label = None, f"{cores}core"
    return {
        "label": label,
        "processor": processor(),
        "cores": cores,
        **({"gpu": gpu} if gpu else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = any(not line.endswith(("results/", ".json", ".md")) for line in git("status", "--porcelain").splitlines())
    return (git("rev-parse", "HEAD") or "unknown") + (" with uncommitted changes" if changed else "")


def _command() -> str:
    return shlex.join(["python", os.path.relpath(sys.argv[0], Path(__file__).parents[1]), *sys.argv[1:]])
