"""The frame of a report: one HTML file that needs neither network nor script, light or dark as the reader has it."""

from __future__ import annotations

import html
from collections.abc import Sequence

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1rem;background:Canvas;color:CanvasText}
h1{font-size:1.4rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:0 0 .25rem}
div.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1.5rem}
figure{margin:0}figcaption{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.875rem}
.table{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .75rem .2rem 0;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}
th:first-child,td:first-child{text-align:left}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:1rem 0}dd{margin:0}
pre{overflow-x:auto;font-size:.8125rem}summary{cursor:pointer}
""".strip()


def page(name: str, body: str, *, style: str = "") -> str:
    """A whole page.

    Args:
        name: before ``ProtCLIP`` in the title.
        body: HTML.
        style: of what is special to it.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(name)} · ProtCLIP</title><style>{STYLE}\n{style}</style></head><body>{body}"
        "</body></html>\n"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text, which scrolls where the page is narrow; the first row is the header."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return (
        f'<div class="table"><table>{row(rows[0], "th")}{"".join(row(cells, "td") for cells in rows[1:])}</table></div>'
    )
