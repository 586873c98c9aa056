"""The tables and plots of ``objectives.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

Results = Mapping[str, Sequence[Mapping[str, float]]]
"""By setting, what was measured with each seed."""
Costs = Mapping[str, Mapping[str, float]]
"""By setting, what a training step takes."""


def tables(results: Results, costs: Costs, *, num_texts: int, num_pairs: int) -> str:
    """Both parts as Markdown; retrieval is among so many texts, and a step of so many pairs."""
    lines = [
        f"Mean over the seeds, lowest and highest in brackets where there are several. Retrieval: text to "
        f"protein among {num_texts} (chance {10 / num_texts:.3f} at 10). Reconstruction: nats per masked "
        "residue. AUROC: against the residues of the property's motif; chance is 0.5. W where there is no PDA is that "
        "of the projected text.",
        "",
        "| setting | recall@1 | recall@10 | right text | wrong text | wrong − right | occlusion | W |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns = ("recall@1", "recall@10", "right_text", "wrong_text", "nats", "occlusion", "segments")
    lines += [f"| {name} | {' | '.join(_cell(seeds, key) for key in columns)} |" for name, seeds in results.items()]
    lines += [
        "",
        f"A training step at ESM-2 8M's shape with a frozen BERT of 4 × 256, {num_pairs} pairs, one thread, processor "
        "time, interleaved:",
        "",
        "| setting | GFLOP | fastest, s | median, s | FLOPs / GC | time / GC | time / FLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cost in costs.items():
        ratio = cost["time_over_gc"] / cost["flops_over_gc"]
        numbers = [cost[key] for key in ("gflop", "fastest_s", "median_s", "flops_over_gc", "time_over_gc")]
        lines.append(f"| {name} | {' | '.join(f'{number:.2f}' for number in [*numbers, ratio])} |")
    return "\n".join(lines)


def _cell(seeds: Sequence[Mapping[str, float]], key: str) -> str:
    if key not in seeds[0]:
        return "–"
    values = [entry[key] for entry in seeds]
    spread = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def draw(results: Results, costs: Costs, stem: Path) -> None:
    """A plot of each result, a point for each seed."""

    def series(*keys: str) -> dict[str, dict[str, list[float]]]:
        return {
            name: {key: [entry[key] for entry in seeds] for key in keys if key in seeds[0]}
            for name, seeds in results.items()
        }

    plots = {
        "retrieval": ("recall among 256, text to protein", series("recall@1", "recall@10"), None),
        "reconstruction": ("cross-entropy, nats per masked residue", series("right_text", "wrong_text"), None),
        "explanation": ("AUROC against the planted residues", series("occlusion", "segments"), 0.5),
        "step_cost": (
            "times GC's, ESM-2 8M shape",
            {name: {"FLOPs": [cost["flops_over_gc"]], "time": [cost["time_over_gc"]]} for name, cost in costs.items()},
            None,
        ),
    }
    for name, (label, values, chance) in plots.items():
        figure = _dots({setting: marks for setting, marks in values.items() if marks}, label, chance)
        figure.savefig(f"{stem}_{name}.png", dpi=120)


def _dots(values: Mapping[str, Mapping[str, Sequence[float]]], label: str, chance: float | None) -> Figure:
    figure = Figure(figsize=(7, 0.8 + 0.34 * len(values)), layout="constrained")
    axes = figure.subplots()
    for key, marker, colour in zip(next(iter(values.values())), "os", ("tab:blue", "tab:orange"), strict=True):
        points = [(number, row) for row, marks in enumerate(values.values()) for number in marks[key]]
        axes.plot(*zip(*points, strict=True), marker, color=colour, alpha=0.7, label=key.replace("_", " "))
    if chance is not None:
        axes.axvline(chance, color="grey", linestyle=":", label="chance")
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(label)
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure
