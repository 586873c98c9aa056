"""Curves as inline SVG for a page that works offline: no script, no library, colours from the page's style sheet.

For pictures of papers and the like there is ``protclip/reporting/plots.py``.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT = 480, 270
"""Of the picture, in its own units; it is scaled to the width of its column. Small enough to be read on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 68, 20, 12, 44
"""Margins round the plotted area."""
MAX_POINTS = 300
"""Points of a line; more are averaged in stretches, and a band shows the least and the greatest of each."""
MAX_DOTS = 60
"""Points of a line that are still drawn one by one, each with its value."""
NUM_COLORS = 6

STYLE = """
:root{--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0518a;--c4:#b07d00;--c5:#5b5bd6}
@media (prefers-color-scheme:dark){
:root{--c0:#56b4e9;--c1:#ff8a4c;--c2:#3ccf9f;--c3:#e79ac6;--c4:#e9c46a;--c5:#a3a3ff}}
.curves svg{display:block;width:100%;height:auto}
.curves text{fill:currentColor;font-size:13px}
.curves .grid{stroke:currentColor;stroke-opacity:.15}
.curves .axis{stroke:currentColor;stroke-opacity:.5}
.curves .line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}
.curves .band{fill:var(--c);fill-opacity:.18;stroke:none}
.curves .dot{fill:var(--c)}
.curves .level{stroke:currentColor;stroke-opacity:.7;stroke-dasharray:5 4}
.curves .key{display:inline-block;width:1.1em;height:0;border-top:3px solid var(--c);vertical-align:middle}
.curves .key{margin-right:.35em}
.curves .key.level{border-top:2px dashed currentColor}
""".strip()
"""For the page that holds figures, in an element of class ``curves``."""

Points = Sequence[tuple[float, float]]


def figure(
    title: str,
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    from_zero: bool = False,
) -> str:
    """A ``<figure>`` with title, axes and legend; empty where no series has a finite point.

    Args:
        title: what is shown.
        series: name → (x, y) points in the order of x, which counts steps or epochs; non-finite ones are left out.
        x_label: of the horizontal axis, with its unit if it has one.
        y_label: of the vertical axis, likewise.
        levels: name → y of a dashed line across.
        from_zero: whether the vertical axis begins at 0, as for shares and rates.
    """
    finite = {name: [(x, y) for x, y in points if math.isfinite(x + y)] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return ""
    levels = levels or {}
    xs = [x for points in finite.values() for x, _ in points]
    ys = [y for points in finite.values() for _, y in points] + list(levels.values())
    x_range = _padded(min(xs), max(xs))
    y_ticks = _ticks(*_padded(min([0.0, *ys] if from_zero else ys), max(ys)), num=4, outward=True)
    y_range = (y_ticks[0], y_ticks[-1])
    parts = _axes(x_range, y_ticks, x_label, y_label)
    legend = []
    for i, (name, points) in enumerate(finite.items()):
        color = f"--c:var(--c{i % NUM_COLORS})"
        parts.append(f'<g style="{color}">{_line(name, points, x_range, y_range)}</g>')
        legend.append(f'<span><i class="key" style="{color}"></i>{html.escape(name)} {_spelled(points[-1][1])}</span>')
    for name, level in levels.items():
        y = _y(level, y_range)
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        legend.append(f'<span><i class="key level"></i>{html.escape(name)} {_spelled(level)}</span>')
    return (
        f'<figure><h3>{html.escape(title)}</h3><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg><figcaption>{" ".join(legend)}</figcaption></figure>'
    )


def _axes(x_range: tuple[float, float], y_ticks: Sequence[float], x_label: str, y_label: str) -> list[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y_ticks:
        y = _y(tick, (y_ticks[0], y_ticks[-1]))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{_tick(tick)}</text>')
    for tick in (tick for tick in _ticks(*x_range, num=5, outward=False) if tick == round(tick)):
        x = _x(tick, x_range)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{_tick(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text transform="translate(12 {(TOP + floor) / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    return parts


def _line(name: str, points: Points, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    stretches = np.array_split(np.asarray(points, dtype=float), min(MAX_POINTS, len(points)))
    means = [(_x(part[:, 0].mean(), x_range), _y(part[:, 1].mean(), y_range)) for part in stretches]
    drawn = f'<polyline class="line" points="{_path(means)}"/>'
    if len(points) > MAX_POINTS:
        ends = [(part[:, 1].min(), part[:, 1].max()) for part in stretches]
        above = [(x, _y(high, y_range)) for (x, _), (_, high) in zip(means, ends, strict=True)]
        below = [(x, _y(low, y_range)) for (x, _), (low, _) in zip(means, ends, strict=True)]
        drawn = f'<polygon class="band" points="{_path([*above, *reversed(below)])}"/>' + drawn
    if len(points) <= MAX_DOTS:
        for (x, y), (at, value) in zip(means, points, strict=True):
            words = html.escape(f"{name}, {at:g}: {_spelled(value)}")
            drawn += f'<circle class="dot" cx="{x}" cy="{y}" r="3"><title>{words}</title></circle>'
    return drawn


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def _x(value: float, x_range: tuple[float, float]) -> float:
    low, high = x_range
    return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, y_range: tuple[float, float]) -> float:
    low, high = y_range
    return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def _padded(low: float, high: float) -> tuple[float, float]:
    """The range, or one round its only value."""
    if low < high:
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float, *, num: int, outward: bool) -> list[float]:
    """About ``num`` round numbers within the range, or, outward, from just below it to just above."""
    raw = (high - low) / num
    slack = 1e-9  # what is round but for the arithmetic is round
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if raw <= factor * power * (1 + slack))
    if outward:
        first, last = math.floor(low / step + slack), math.ceil(high / step - slack)
    else:
        first, last = math.ceil(low / step - slack), math.floor(high / step + slack)
    return [i * step for i in range(first, last + 1)]


def _tick(value: float) -> str:
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size:
            return f"{value / size:g}{letter}"
    return f"{value:.6g}"


def _spelled(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
