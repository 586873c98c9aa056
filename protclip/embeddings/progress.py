"""What a run of ``protclip embed`` tells of itself: rows, residues a second, and when it will be done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from protclip.embeddings.blocks import BlockItem, PartReport
from protclip.terminal import echo
from protclip.units import Report

SAY_EVERY_S = 30.0
"""Between two lines where no terminal shows a bar."""


def show_progress(
    reports: Iterable[Report],
    committed: Sequence[PartReport],
    *,
    blocks: Sequence[BlockItem] | None,
) -> Iterator[Report]:
    """Pass the reports of parts on, with a bar on a terminal, or a line now and then.

    The time left is known from when the input was cut to its end, which a report with ``total`` rows says.

    Args:
        reports: with ``read`` rows and the ``residues`` of each part.
        committed: the records of an earlier run.
        blocks: all items with their ``rows``; None where the input is still to be cut.
    """
    from tqdm import tqdm

    done = sum(record["read"] for record in committed)
    total = None if blocks is None else sum(block["rows"] for block in blocks)
    with tqdm(total=total, initial=done, desc="embedding", unit="row", disable=not sys.stderr.isatty()) as bar:
        first = said = None
        residues = new = 0
        for report in reports:
            now = time.monotonic()
            if "total" in report:
                bar.total = total = report["total"]
            else:
                done += report["read"]
                bar.update(report["read"])
                if first is None:  # the start is not counted
                    first = said = now
                else:
                    residues, new = residues + report["residues"], new + report["read"]
                    bar.set_postfix_str(f"{residues / max(now - first, 1e-9):,.0f} residues/s")
                    if bar.disable and said is not None and now - said >= SAY_EVERY_S:
                        echo(_line(done, total, residues, new, now - first), err=True)
                        said = now
            yield report


def _line(done: int, total: int | None, residues: int, new: int, seconds: float) -> str:
    of_all = "" if total is None else f" of {total:,}"
    left = "" if total is None else f", {(total - done) * seconds / max(new, 1) / 3600:.1f} h left"
    return f"embed: {done:,}{of_all} rows, {residues / max(seconds, 1e-9):,.0f} residues/s{left}"
