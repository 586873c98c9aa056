"""The run's report: whole, honest about unfinished runs, and made of the run's own numbers."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folders import fake_entry, fake_step, write_fake_run

from protclip import files
from protclip.reporting.curves import MAX_POINTS, figure
from protclip.reporting.report import write_report

pytestmark = pytest.mark.unit

VOID = {"meta", "br"}
CURVES = [
    "Validation loss",
    "recall@10 of 2,000 validation pairs",
    "recall@1 of 2,000 validation pairs",
    "Training loss",
    "Speed",
    "Padding, and waiting for data",
    "Learning rate",
    "Gradient norm",
    "Memory",
]


class Page(HTMLParser):
    """The page's parts; a tag that is not closed, or closed by another, fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.polylines: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        self.links += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "polyline":
            self.polylines.append(dict(attrs)["points"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)


def read(run_dir: str) -> str:
    with files.open_read(files.join(run_dir, "report.html")) as stream:
        return stream.read().decode()


def facts(page: Page) -> dict[str, str]:
    return dict(zip(page.texts["dt"], page.texts["dd"], strict=True))


def test_a_finished_run_is_told_in_its_own_numbers(tmp_path: Path) -> None:
    write_fake_run(str(tmp_path))
    write_report(str(tmp_path))
    page = Page(read(str(tmp_path)))
    assert facts(page)["State"] == "finished"
    best = fake_entry(6)["valid"]
    assert facts(page)["Best epoch"] == "6"
    assert facts(page)["Validation loss"] == f"{best['loss']:.4f} of 2,000 pairs (1,990 proteins, 500 texts)"
    assert facts(page)["Steps"] == "3,200"
    assert facts(page)["Skipped steps"] == "1"
    assert facts(page)["Time"] == "1:25:23"
    cells = page.texts["td"]
    for way in ("text_to_protein", "protein_to_text"):
        row = cells[cells.index(f"{way.replace('_to_', ' → ')}, epoch 6") + 1 :]
        assert row[:3] == [f"{best[way][f'recall@{k}']:.3f}" for k in (1, 5, 10)]
    assert cells[cells.index("chance") + 1 :][:3] == ["0.002", "0.010", "0.020"]
    assert any("1,990 proteins, 500 texts" in text for text in page.texts["p"])
    assert page.texts["h3"] == CURVES
    assert page.texts["pre"] == ["run_dir: <somewhere> & else\nseed: 0\nepochs: 8\n"]


def test_the_page_loads_nothing_and_has_no_script(tmp_path: Path) -> None:
    write_fake_run(str(tmp_path))
    write_report(str(tmp_path))
    page = read(str(tmp_path))
    assert Page(page).links == []
    assert "<script" not in page
    assert "url(" not in page
    assert "http" not in page


def test_what_a_user_named_is_escaped(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "<script>alert(1)<")
    write_fake_run(run_dir)
    write_report(run_dir)
    assert "<script" not in read(run_dir)
    assert any("<script>alert(1)<" in text for text in Page(read(run_dir)).texts["h1"])


def test_an_unfinished_run_has_a_report_at_every_moment(tmp_path: Path) -> None:
    write_report(str(tmp_path))
    assert facts(Page(read(str(tmp_path))))["State"] == "unfinished, 0 epochs done"

    write_fake_run(str(tmp_path), epochs=0, finished=False)
    write_report(str(tmp_path))
    page = Page(read(str(tmp_path)))
    assert "Best epoch" not in facts(page)
    assert page.texts["h3"] == CURVES[:3]

    write_fake_run(str(tmp_path), epochs=3, finished=False)
    write_report(str(tmp_path))
    page = Page(read(str(tmp_path)))
    assert facts(page)["State"] == "unfinished, 3 epochs done"
    assert facts(page)["Best epoch"] == "3 so far"
    assert facts(page)["Selected by"] == "lowest validation loss"
    assert facts(page)["Time"] == "31:01"


def test_the_best_epoch_is_that_of_the_runs_own_measure(tmp_path: Path) -> None:
    write_fake_run(str(tmp_path), epochs=8, finished=False)  # the loss is lowest at epoch 6, and recall rises
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    selection = {"metric": "text_to_protein_recall_at_10", "mode": "max"}
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "selection": selection}))
    write_report(str(tmp_path))
    found = facts(Page(read(str(tmp_path))))
    assert found["Best epoch"] == "8 so far"
    assert found["Selected by"] == "highest validation text to protein recall@10"


def test_a_run_on_a_url_has_its_report_there() -> None:
    write_fake_run("memory://reports/run")
    write_report("memory://reports/run")
    assert facts(Page(read("memory://reports/run")))["Best epoch"] == "6"


def test_keys_that_are_missing_or_no_numbers_leave_the_rest(tmp_path: Path) -> None:
    entries = [fake_entry(0), fake_entry(1)]
    for entry in entries:
        for key in ("bsr", "pda", "mlm"):
            del entry["valid"][key]
    entries[1]["valid"]["loss"] = float("nan")
    (tmp_path / "metrics.json").write_text(json.dumps({"history": entries}))
    lines = [json.dumps({"step": step, "loss": loss, "gc": loss}) for step, loss in ((1, 2.0), (2, float("nan")))]
    (tmp_path / "steps.jsonl").write_text("\n".join(lines))
    write_report(str(tmp_path))
    page = Page(read(str(tmp_path)))
    assert page.texts["h3"] == CURVES[:4]
    assert facts(page)["Validation loss"] == "nan of 2,000 pairs (1,990 proteins, 500 texts)"
    assert facts(page)["Steps"] == "400"
    assert "Skipped steps" not in facts(page)


def test_steps_that_a_resumed_run_repeats_count_once_and_torn_lines_are_told(tmp_path: Path) -> None:
    rows = [{**fake_step(step), "skipped": 1} for step in (10, 20, 30, 20, 30, 40)]
    lines = [json.dumps(row) for row in rows]
    lines[2] = lines[2][: len(lines[2]) // 2]
    (tmp_path / "steps.jsonl").write_text("\n".join(lines))
    write_report(str(tmp_path))
    page = Page(read(str(tmp_path)))
    assert facts(page)["Skipped steps"] == "4"
    assert any(text.startswith("1 lines of steps.jsonl cannot be read") for text in page.texts["p"])
    assert len(page.polylines[0].split()) == 4


def test_a_curve_goes_through_its_points() -> None:
    page = Page(figure("t", {"a": [(0, 0.0), (5, 5.0), (10, 10.0)]}, x_label="step", y_label="loss"))
    (first, middle, last) = ([float(n) for n in place.split(",")] for place in page.polylines[0].split())
    assert first[0] < middle[0] < last[0]
    assert first[1] > middle[1] > last[1]  # SVG counts downwards
    assert middle == pytest.approx([(first[0] + last[0]) / 2, (first[1] + last[1]) / 2], abs=0.1)
    assert page.texts["text"] == ["0", "5", "10", "0", "2", "4", "6", "8", "10", "step", "loss"]


def test_a_long_curve_is_short_and_keeps_its_peaks() -> None:
    points = [(step, 100.0 if step == 77_777 else 1.0) for step in range(100_000)]
    drawn = figure("t", {"a": points}, x_label="step", y_label="norm")
    assert len(Page(drawn).polylines[0].split()) == MAX_POINTS
    assert '<polygon class="band"' in drawn
    assert ",12.0" in drawn.split('class="band"')[1]  # the peak touches the top
    assert len(drawn) < 30_000


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-5, 3.7, 1e12])
def test_a_single_point_has_axes_round_it(value: float) -> None:
    page = Page(figure("t", {"a": [(7, value)]}, x_label="step", y_label="loss"))
    assert len(page.polylines) == 1


def test_nothing_to_draw_is_no_figure() -> None:
    assert figure("t", {"a": [], "b": [(1, float("inf"))]}, x_label="x", y_label="y") == ""


def test_epochs_and_steps_are_counted_in_whole_numbers() -> None:
    page = Page(figure("t", {"a": [(0, 1.0), (1, 2.0), (2, 3.0)]}, x_label="epoch", y_label="loss"))
    assert page.texts["text"][-5:] == ["0", "1", "2", "epoch", "loss"]
