"""Units of work: done once each, wherever they run, and taken up where a run was killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from protclip import files
from protclip.errors import DataError
from protclip.units import InProcess, Item, Report, Reporting, Work, do_units, finished_units, run_units

pytestmark = pytest.mark.unit

ITEMS = [{"unit": f"{i:05d}", "number": i} for i in range(7)]


def square(item: Item, *, log: list[int]) -> Report:
    log.append(item["number"])
    return {"square": item["number"] ** 2}


def cut(item: Item, *, done: frozenset[str]) -> Iterator[Item]:
    for i in range(item["start"], item["stop"]):
        if f"{i:05d}" not in done:
            yield {"unit": f"{i:05d}", "data": str(i).encode()}
    yield {"total": item["stop"]}


@pytest.mark.parametrize("threads", [1, 3])
def test_what_has_a_report_is_not_done_again(tmp_path: Path, threads: int) -> None:
    log: list[int] = []
    folder, work, run = str(tmp_path / "reports"), Work(title="squaring", unit=partial(square, log=log)), InProcess
    assert [report["square"] for report in run_units(work, ITEMS[:3], folder, run(threads=threads))] == [0, 1, 4]
    reports = run_units(work, ITEMS[::-1], folder, run(threads=threads))
    assert [report["square"] for report in reports] == [36, 25, 16, 9, 4, 1, 0]
    assert sorted(log) == list(range(7))
    assert finished_units(folder) == {item["unit"] for item in ITEMS}
    assert list(do_units(work, ITEMS, folder, run(threads=threads))) == []  # none is given to anybody
    assert Reporting(work.unit, folder)(ITEMS[2]) == {"square": 4}  # as Ray does whose worker died after its last write
    assert len(log) == 7


@pytest.mark.parametrize("threads", [1, 3])
def test_a_unit_that_fails_leaves_no_report_and_the_others_stay(tmp_path: Path, threads: int) -> None:
    def unit(item: Item) -> Report:
        if item["number"] == 3:
            raise DataError("row 3 is bad")
        return {}

    with pytest.raises(DataError, match="row 3"):
        run_units(Work(title="some", unit=unit), ITEMS, str(tmp_path), InProcess(threads=threads))
    assert {"00000", "00001", "00002"} <= finished_units(str(tmp_path))
    assert "00003" not in finished_units(str(tmp_path))


@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_are_cut_while_earlier_ones_are_done_and_never_far_ahead(tmp_path: Path, threads: int) -> None:
    ahead: list[int] = []
    lock, cut_off = threading.Lock(), [0, 0]

    def pieces(item: Item) -> Iterator[Item]:
        for piece in cut(item, done=frozenset({"00001"})):
            with lock:
                cut_off[0] += 1
                ahead.append(cut_off[0] - cut_off[1])
            yield piece

    def unit(item: Item) -> Report:
        with lock:
            cut_off[1] += 1
        return {"number": int(item["data"])}

    work = Work(title="reading", unit=unit, cut=pieces)
    found = list(do_units(work, [{"start": 0, "stop": 20}], str(tmp_path), InProcess(threads=threads)))
    assert sorted(report["number"] for report in found if "number" in report) == [0, *range(2, 20)]
    assert {"total": 20} in found  # news of the cut, no unit
    assert max(ahead) <= threads + 2
    assert len(finished_units(str(tmp_path))) == 19


def test_units_that_keep_a_state_are_done_one_after_another_by_one_object() -> None:
    class Unit:
        at_work = seen = 0

        def __call__(self, _: Item) -> Report:
            self.at_work += 1
            assert self.at_work == 1
            self.seen += 1
            self.at_work -= 1
            return {"seen": self.seen}

    work = Work(title="embedding", unit=Unit(), keeps_state=True)
    assert [report["seen"] for report in InProcess(threads=4)(work, ITEMS)] == list(range(1, 8))


def test_what_a_unit_spent_goes_when_its_report_is_there(tmp_path: Path) -> None:
    block, folder = tmp_path / "block", tmp_path / "reports"
    item = {"unit": "00000", "spent": str(block)}

    def unit(item: Item) -> Report:
        if not files.exists(item["spent"]):
            raise DataError("no block")
        return {"length": len(Path(item["spent"]).read_text())}

    block.write_text("MKV")
    assert Reporting(unit, str(folder))(item) == {"length": 3}
    assert not block.exists()
    assert Reporting(unit, str(folder))(item) == {"length": 3}  # given again to another worker
    with pytest.raises(DataError, match="no block"):
        Reporting(unit, str(folder))({**item, "unit": "00001"})

    def outrun(_: Item) -> Report:
        files.write_json(str(folder / "00002.json"), {"length": 8})
        raise DataError("another worker took the block away")

    assert Reporting(outrun, str(folder))({**item, "unit": "00002"}) == {"length": 8}


def test_a_time_out_of_a_unit_does_not_read_as_a_full_disk(tmp_path: Path) -> None:
    def unit(_: Item) -> Any:
        raise TimeoutError("the cluster did not answer")

    with pytest.raises(TimeoutError, match="did not answer"):
        Reporting(unit, str(tmp_path / "reports"))({"unit": "00000"})
