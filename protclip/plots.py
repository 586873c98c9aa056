"""Pictures. A function makes a Figure of plain numbers, ``save`` writes it; nobody shares a drawing state.

matplotlib is the optional extra ``protclip[plot]``: it is imported when something is drawn. Commands call
``check_plot`` first, so that nobody waits for a model to learn that there will be no picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from protclip import files
from protclip.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
DPI = 150
WIDTH_INCHES = 10.0
PANEL_INCHES = 2.2
TITLE_WIDTH, TITLE_LINES = 110, 3
"""Characters of a line of a title, and lines; a longer one is cut."""
MAX_LETTERS = 80
"""Residues of a protein whose letters still fit under an axis."""


def check_plot(path: str) -> None:
    """Refuse a picture that could not be written.

    Raises:
        ConfigError: if matplotlib is not installed, or the file's name has no known ending.
    """
    _check_ending(path)
    if find_spec("matplotlib") is None:
        raise ConfigError(f"{path}: matplotlib draws it and is not installed; pip install 'protclip[plot]'")


def save(figure: Figure, path: str) -> None:
    """Write a figure in the format that the file's name ends in; it appears whole or not at all.

    Args:
        figure: as the functions of this module make it.
        path: path or fsspec URL, ending in .png, .svg or .pdf.

    Raises:
        ConfigError: for another ending.
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
