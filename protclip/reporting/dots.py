"""A dot plot as inline SVG, for the pages that hold curves: a row for each task, a mark for each model."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from protclip.reporting.curves import NUM_COLORS

PLOT, ROW, TOP, RIGHT, BOTTOM = 500, 30, 8, 24, 44
"""Width of the plotted area and height of one row, in the picture's own units, and the margins round them."""
LETTER = 7.2
"""Width of a letter; the left margin has room for the longest name."""

STYLE = """
.dots svg{display:block;width:100%;max-width:72rem;height:auto}
.dots .row{stroke:currentColor;stroke-opacity:.15}
.dots .interval{stroke:var(--c);stroke-width:2.5;stroke-opacity:.55;stroke-linecap:round}
.dots .full{fill:var(--c)}
.dots .hollow{fill:Canvas;stroke:currentColor;stroke-width:1.5}
.dots .cross{fill:none;stroke:currentColor;stroke-width:2}
.dots .diamond{fill:currentColor}
.dots figcaption svg{display:inline-block;width:14px;vertical-align:middle;margin-right:.3em}
""".strip()

Mark = Literal["full", "hollow", "cross", "diamond", "bar"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A value of a row."""

    value: float
    low: float | None = None
    """Ends of an interval round it, or None."""
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """What is marked alike in all rows."""

    name: str
    mark: Mark
    dots: Mapping[str, Dot]
    """By the name of the row; rows may be missing."""


def dot_plot(title: str, rows: Sequence[str], series: Sequence[Series], *, x_label: str) -> str:
    """A ``<figure>`` with rows from top to bottom, an axis from 0, or below, to 1, and a legend.

    Args:
        title: what is shown, for those who hear it.
        rows: their names, in order.
        series: of a later one the marks lie over those of an earlier one. Full marks have colours of their own.
        x_label: of the axis.
    """
    values = [end for one in series for dot in one.dots.values() for end in (dot.value, dot.low, dot.high)]
    low = min(0.0, *(value for value in values if value is not None), 0.0)
    low = -round(-low + 0.049, 1) if low < 0 else 0.0

    left = 20 + LETTER * max(map(len, rows), default=0)
    right = left + PLOT

    def x(value: float) -> float:
        return round(left + (value - low) / (1 - low) * PLOT, 1)

    floor = TOP + ROW * len(rows)
    parts = []
    for tick in [i / 5 for i in range(6)] + ([low] if low < 0 else []):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text x="{x(tick)}" y="{floor + 18}" text-anchor="middle">{tick:g}</text>')
    middle = left + PLOT / 2
    parts.append(f'<text x="{middle}" y="{floor + 38}" text-anchor="middle">{html.escape(x_label)}</text>')
    for number, name in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        parts.append(f'<line class="row" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 10}" y="{y}" dy=".35em" text-anchor="end">{html.escape(name)}</text>')
    legend = []
    full = [one.name for one in series if one.mark == "full"]
    for one in series:
        color, shift, drawn = "", 0.0, []
        if one.mark == "full":  # several of one row stand a little above one another
            number = full.index(one.name)
            color = f"--c:var(--c{number % NUM_COLORS})"
            shift = (number - (len(full) - 1) / 2) * min(8.0, 16 / len(full))
        for name, dot in one.dots.items():
            y = TOP + ROW * (rows.index(name) + 0.5) + shift
            drawn.append(_dot(f"{one.name}, {name}", dot, one.mark, x, y))
        parts.append(f'<g style="{color}">{"".join(drawn)}</g>')
        key = f'<svg viewBox="-7 -7 14 14" style="{color}">{_mark(one.mark, 0, 0)}</svg>'
        legend.append(f"<span>{key}{html.escape(one.name)}</span>")
    return (
        f'<figure class="curves dots"><svg viewBox="0 0 {right + RIGHT} {floor + BOTTOM}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg><figcaption>{" ".join(legend)}</figcaption></figure>'
    )


def _dot(name: str, dot: Dot, mark: Mark, x: Callable[[float], float], y: float) -> str:
    drawn, words = "", f"{name}: {dot.value:.3f}"
    if dot.low is not None and dot.high is not None:
        drawn = f'<line class="interval" x1="{x(dot.low)}" x2="{x(dot.high)}" y1="{y}" y2="{y}"/>'
        words += f" ({dot.low:.3f} to {dot.high:.3f})"
    return f"<g><title>{html.escape(words)}</title>{drawn}{_mark(mark, x(dot.value), y)}</g>"


def _mark(mark: Mark, x: float, y: float) -> str:
    if mark == "cross":
        return f'<path class="cross" d="M{x - 4} {y - 4}L{x + 4} {y + 4}M{x - 4} {y + 4}L{x + 4} {y - 4}"/>'
    if mark == "diamond":
        return f'<path class="diamond" d="M{x} {y - 5}L{x + 5} {y}L{x} {y + 5}L{x - 5} {y}Z"/>'
    if mark == "bar":
        return f'<path class="cross" d="M{x} {y - 7}L{x} {y + 7}"/>'
    return f'<circle class="{mark}" cx="{x}" cy="{y}" r="5"/>'
