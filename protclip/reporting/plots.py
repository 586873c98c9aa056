"""Pictures. A function makes a Figure of plain numbers, ``save`` writes it; nobody shares a drawing state.

matplotlib is the optional extra ``plot``: it is imported when something is drawn. Commands call
``check_plot`` first, so that nobody waits for a model to learn that there will be no picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from protclip import files
from protclip.errors import ConfigError
from protclip.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
DPI = 150
WIDTH_INCHES = 10.0
PANEL_INCHES = 2.2
TITLE_WIDTH, TITLE_LINES = 110, 3
"""Characters of a line of a title, and lines; a longer one is cut."""
DATASET_COLORS = ("#9ecae1", "#2171b5", "#fdae6b", "#d94801")
"""Two shades of blue for the user's data, two of orange for what it is held against; apart for the colour-blind too."""
MAX_LETTERS = 80
"""Residues of a protein whose letters still fit under an axis."""


def check_plot(path: str) -> None:
    """Refuse a picture that could not be written.

    Raises:
        ConfigError: if matplotlib is not installed, or the file's name has no known ending.
    """
    _check_ending(path)
    require("matplotlib", extra="plot", what=path)


def save(figure: Figure, path: str) -> None:
    """Write a figure in the format that the file's name ends in; it appears whole or not at all.

    Args:
        figure: as the functions of this module make it.
        path: path or fsspec URL, ending in .png, .svg or .pdf.

    Raises:
        ConfigError: for another ending, or a place that cannot be written.
    """
    ending = _check_ending(path)
    with files.atomic_write(files.absolute(path)) as stream:
        figure.savefig(stream, format=ending.removeprefix("."), dpi=DPI)


def residue_figure(residues: str, panels: Mapping[str, np.ndarray], *, title: str) -> Figure:
    """Numbers of each residue along the sequence, one panel below the other.

    Args:
        residues: R letters; a short sequence is written under the axis.
        panels: what the vertical axis says → R numbers.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, 1.0 + PANEL_INCHES * len(panels)), layout="constrained")
    figure.suptitle(_wrapped(title), fontsize="medium", parse_math=False)  # a $ in a text is no formula
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (label, scores_R) in zip(axes, panels.items(), strict=True):
        ax.stairs(scores_R, np.arange(len(residues) + 1) + 0.5, fill=True)
        ax.axhline(0, color="black", linewidth=0.6)
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylabel(label)
    _number_residues(axes[-1], residues)
    return figure


def composition_figure(
    shares: Mapping[str, Mapping[str, Mapping[str, float]]],
    histograms: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    *,
    title: str,
) -> Figure:
    """Shares of several data sets side by side, and histograms of one of them below.

    Args:
        shares: what the horizontal axis says → category → data set → share of its entries, 0 to 1.
        histograms: what the horizontal axis says → edges of the bins and rows in each.
        title: of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    figure = Figure(figsize=(WIDTH_INCHES, 7.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    figure.suptitle(_wrapped(title), fontsize="medium", parse_math=False)
    above, below = figure.subplots(2, 2)
    above[0].sharey(above[1])
    for ax, (label, by_category) in zip(above, shares.items(), strict=True):
        datasets = list(dict.fromkeys(name for by_dataset in by_category.values() for name in by_dataset))
        width = 0.84 / len(datasets)
        for i, name in enumerate(datasets):
            heights = [100 * by_dataset.get(name, 0.0) for by_dataset in by_category.values()]
            places = np.arange(len(by_category)) + (i - (len(datasets) - 1) / 2) * width
            ax.bar(places, heights, width, label=name, color=DATASET_COLORS[i])
        ax.set_xticks(range(len(by_category)), list(by_category), parse_math=False)
        ax.set_xlabel(label)
        ax.set_ylabel("% of entries")
    figure.legend(*above[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    for ax, (label, (edges, counts)) in zip(below, histograms.items(), strict=True):
        ax.stairs(counts, np.asarray(edges) - 0.5, fill=True, color=DATASET_COLORS[1])
        ax.set_xscale("log")
        first = max(0.5, edges[0] - 0.5)
        ax.set_xlim(first, edges[-1] - 0.5)
        span = edges[-1] / first  # a short one may hold no power of ten
        ax.xaxis.set_major_locator(MaxNLocator(6) if span < 20 else LogLocator(subs=(1, 2, 5) if span < 500 else (1,)))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.set_xlabel(label)
        ax.set_ylabel("pairs")
    for ax in (*above, *below):
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _number_residues(ax: Axes, residues: str) -> None:
    ax.set_xlim(0.5, len(residues) + 0.5)
    ax.set_xlabel("residue")
    ax.set_xticks(_round_numbers(len(residues)))
    if len(residues) <= MAX_LETTERS:
        ax.tick_params(axis="x", pad=16)  # the letters stand between the axis and its numbers
        for number, letter in enumerate(residues, start=1):
            ax.annotate(
                letter,
                (number, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, -6),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize="small",
                fontfamily="monospace",
            )


def _round_numbers(length: int) -> list[int]:
    """1 and about a dozen round numbers up to the length."""
    step = next(
        factor * 10**power
        for power in range(len(str(length)) + 1)
        for factor in (1, 2, 5)
        if length <= 12 * factor * 10**power
    )
    return sorted({1, *range(step, length + 1, step)})


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, TITLE_WIDTH, max_lines=TITLE_LINES, placeholder=" …"))


def _check_ending(path: str) -> str:
    ending = next((ending for ending in ENDINGS if path.lower().endswith(ending)), None)
    if ending is None:
        raise ConfigError(f"{path}: pictures are written as {', '.join(ENDINGS)}; end the file's name in one of them.")
    return ending
