"""Units of work: a unit leaves files and then a report, and what has a report is not done again.

So a run that was killed goes on with what is missing. ``Work`` says what the units of one kind are; a ``Run`` does
them: ``InProcess`` here, ``ray_jobs.pipelines.OnRay`` on a cluster. A unit depends on its item alone, so the files are
the same wherever and in whatever order units are done.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from protclip import files
from protclip.errors import DataError

Item = Mapping[str, Any]
"""What a unit is told: JSON values, and bytes under ``data`` where it takes some. ``unit`` is its name, that of its
report; ``spent`` a file that goes when the report is there. What has no name is no unit, but news that a cut passes on.
"""
Report = Mapping[str, Any]
"""JSON values."""
TOTAL = ".total.json"
"""Behind the name of a folder of reports: how many there will be."""
Unit = Callable[[Any], Report]
"""Takes an item, which its own TypedDict describes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The units of one kind, and what they take."""

    title: str
    """For people, such as ``merging``."""
    unit: Unit
    """Does one. It is pickled."""
    cut: Callable[[Any], Iterator[Item]] | None = None
    """Makes the units, from each item that is given, while earlier ones are done; where these fall behind, it waits.
    Called again, since its worker died, it gives the same."""
    keeps_state: bool = False
    """Whether ``unit`` loads at its first item what is costly and needed for each."""
    workers: tuple[int, int] | None = None
    """Of units that keep a state: the fewest and the most that are at work at once; None for 1 up to what there is room
    for."""
    num_gpus: int = 0
    """Of each worker."""
    memory_bytes: int | None = None
    """That a unit needs, where it is much."""


class Run(Protocol):
    """Where units are done."""

    @property
    def threads(self) -> int:
        """That a unit may use."""

    def room(self, num_gpus: int) -> int:
        """How many units that keep a state can be at work at once, with so many GPUs each."""

    def __call__(self, work: Work, items: Sequence[Item]) -> Iterator[Report]:
        """Do a unit for each item, or for each that ``work.cut`` makes of them; gives the reports as they come.

        Raises:
            ProtclipError: what a unit or the cut raised as one.
        """


def num_cores() -> int:
    """Of this machine, as far as this process may use them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InProcess:
    """Units in threads of this process."""

    threads: int = field(default_factory=num_cores)
    """Units that are done at once; one that keeps a state is alone, with all threads for itself."""

    def room(self, num_gpus: int) -> int:  # noqa: ARG002
        """One."""
        return 1

    def __call__(self, work: Work, items: Sequence[Item]) -> Iterator[Report]:
        """Do a unit for each item, or for each that ``work.cut`` makes of them; gives the reports as they come."""
        units = iter(items) if work.cut is None else itertools.chain.from_iterable(map(work.cut, items))
        if work.keeps_state or self.threads == 1 or (len(items) == 1 and work.cut is None):
            yield from map(work.unit, units)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: set[Future[Report]] = set()
            for item in units:
                waiting.add(pool.submit(work.unit, item))
                if len(waiting) > self.threads:  # one is ready for whoever is free
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(waiting))


def do_units(work: Work, items: Sequence[Item], folder: str, run: Run) -> Iterator[Report]:
    """Do the units that have no report yet; gives their reports as they come.

    Args:
        work: what a unit does; its result is its report.
        items: the units, or what they are cut from: then the cut leaves out those that have a report.
        folder: of the reports, one JSON file each.
        run: where.
    """
    there = finished_units(folder)
    missing = [item for item in items if item.get("unit") not in there]
    if missing:
        yield from run(replace(work, unit=Reporting(work.unit, folder)), missing)


def run_units(work: Work, items: Sequence[Item], folder: str, run: Run) -> list[Report]:
    """The same to its end, with a bar on a terminal; gives the reports of all items, in order."""
    write_total(folder, len(items))
    for _ in progress(do_units(work, items, folder, run), title=work.title, total=len(items)):
        pass
    return read_reports(folder, [item["unit"] for item in items])


def write_total(folder: str, number: int) -> None:
    """Write beside a folder of reports how many there will be, for those who look at the storage alone."""
    path = total_path(folder)
    if not files.exists(path):
        files.write_json(path, {"units": number})


def total_path(folder: str) -> str:
    """Where it is written."""
    return f"{folder}{TOTAL}"


def finished_units(folder: str) -> frozenset[str]:
    """The names of the units that have a report."""
    return frozenset(name.removesuffix(".json") for name in files.list_folder(folder) if name.endswith(".json"))


def read_reports(folder: str, names: Iterable[str]) -> list[Report]:
    """The reports of units, in the given order."""
    return files.in_threads(lambda name: files.read_json(report_path(folder, name)), names)


def report_path(folder: str, name: str) -> str:
    """Where the report of a unit is."""
    return files.join(folder, f"{name}.json")


def total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The sum of what reports count, by key."""
    result: Counter[str] = Counter()
    for count in counts:
        result.update(count)
    return result


def progress(reports: Iterable[Report], *, title: str, total: int | None) -> Iterator[Report]:
    """Pass reports on, with a bar on a terminal.

    Args:
        reports: one for each unit.
        title: of the bar.
        total: units in all; None where that is not known.
    """
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit="unit", disable=not sys.stderr.isatty()) as bar:
        for report in reports:
            bar.update()
            yield report


class Reporting:
    """A unit that writes its report, the last of its files."""

    def __init__(self, unit: Unit, folder: str) -> None:
        self.unit, self.folder = unit, folder

    def __call__(self, item: Item) -> Report:
        if "unit" not in item:
            return item
        path = report_path(self.folder, item["unit"])
        # Of a worker that died after its last write: its unit is given to another.
        report: Report | None = files.read_json(path) if files.exists(path) else None
        if report is None:
            try:
                report = self.unit(item)
                files.write_json(path, report)
            except DataError:
                # A worker that outlived a killed run was faster, and what the unit reads is gone.
                if not ("spent" in item and files.exists(path)):
                    raise
                report = files.read_json(path)
        if "spent" in item:
            files.remove(item["spent"])
        return report
