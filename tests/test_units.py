"""Units of work in this process: what has a report is not done again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from protclip import files
from protclip.errors import DataError
from protclip.units import InProcess, Item, Report, Work, do_units, finished_units, report_path, run_units

pytestmark = pytest.mark.unit


class Squares:
    """A unit that notes which items it was given."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, item: Item) -> Report:
        self.done.append(item["unit"])
        return {"unit": item["unit"], "square": item["number"] ** 2}


def items(count: int) -> list[Item]:
    return [{"unit": f"{number:05d}", "number": number} for number in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
def test_reports_are_those_of_the_items_in_order(tmp_path: Path, threads: int) -> None:
    work = Work(title="squaring", unit=Squares())
    reports = run_units(work, items(20), str(tmp_path), InProcess(threads=threads))
    assert [report["square"] for report in reports] == [number**2 for number in range(20)]


def test_what_has_a_report_is_not_done_again(tmp_path: Path) -> None:
    unit, run = Squares(), InProcess(threads=1)
    run_units(Work(title="squaring", unit=unit), items(3), str(tmp_path), run)
    assert finished_units(str(tmp_path)) == {"00000", "00001", "00002"}
    assert len(run_units(Work(title="squaring", unit=unit), items(5), str(tmp_path), run)) == 5
    assert unit.done == ["00000", "00001", "00002", "00003", "00004"]


def test_a_unit_that_fails_leaves_no_report(tmp_path: Path) -> None:
    def unit(item: Item) -> Report:
        if item["number"] == 1:
            raise DataError("cannot be read")
        return {}

    with pytest.raises(DataError, match="cannot be read"):
        list(do_units(Work(title="reading", unit=unit), items(3), str(tmp_path), InProcess(threads=1)))
    assert finished_units(str(tmp_path)) == {"00000"}


def test_news_of_a_cut_pass_through_without_a_report(tmp_path: Path) -> None:
    def cut(_: Item) -> Iterator[Item]:
        yield from items(2)
        yield {"total": 2}

    work = Work(title="squaring", unit=Squares(), cut=cut)
    reports = list(do_units(work, [{}], str(tmp_path), InProcess(threads=1)))
    assert reports[-1] == {"total": 2}
    assert finished_units(str(tmp_path)) == {"00000", "00001"}


def test_a_spent_file_goes_when_the_report_is_there(tmp_path: Path) -> None:
    spent, reports = tmp_path / "chunk", tmp_path / "reports"
    spent.write_text("rows")
    files.make_folder(str(reports))
    found: list[Report] = []

    def unit(item: Item) -> Report:
        return {"read": Path(item["spent"]).read_text()}

    work = Work(title="reading", unit=unit)
    found += do_units(work, [{"unit": "a", "spent": str(spent)}], str(reports), InProcess(threads=1))
    assert found == [{"read": "rows"}] == [json.loads(Path(report_path(str(reports), "a")).read_text())]
    assert not spent.exists()
