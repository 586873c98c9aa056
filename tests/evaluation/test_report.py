"""The report: one page, honest about what is not above what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import fake_results

from protclip.errors import DataError
from protclip.evaluation.report import report_markdown, report_page, write_report
from protclip.evaluation.results import read_results

pytestmark = pytest.mark.unit


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = fake_results()
    write_report(str(tmp_path), results)
    assert read_results(str(tmp_path)) == results
    assert (tmp_path / "report.md").read_text() == report_markdown(results)
    with pytest.raises(DataError, match=r"report\.json"):
        (tmp_path / "report.json").write_text('{"software": 3}')
        read_results(str(tmp_path))


def test_the_page_needs_nothing_else_and_has_a_mark_for_each_score() -> None:
    results = fake_results()
    page = report_page(results)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for score in results.scores:
        task = next(task for task in results.tasks if task.name == score.task)
        assert f"{score.model}, {task.title}" in page
    assert page.count('<circle class="full"') == 1 + sum(score.model == "best" for score in results.scores)


def test_it_says_what_is_above_what_and_what_is_not_known() -> None:
    lines = report_markdown(fake_results()).splitlines()
    assert "- β-lactamase: 0.620; above amino-acid composition (+0.200), above best, not pretrained (+0.110)" in lines
    assert (
        "- GO-MF: 0.310; not clearly above label frequencies (+0.010), not above best, not pretrained (-0.030)" in lines
    )
    assert "* GO-MF: train: 2,286 of 15,551 proteins" in lines
    assert "| go_mf | pairs of best | 90 | unknown | unknown |" in lines
    assert any(line.startswith("| aav | not there") for line in lines)


def test_names_are_text_and_no_markup() -> None:
    results = fake_results()
    evil = replace(results, models=(replace(results.models[0], name="<b>|x"), *results.models[1:]))
    assert "<b>|x" not in report_page(evil)
    assert "<b>|x" not in report_markdown(evil).split("## Scores")[1]


def test_groups_have_a_table_of_their_own() -> None:
    results = fake_results()
    first = results.scores[0]
    metric = next(task.metric for task in results.tasks if task.name == first.task)
    of_groups = {
        f"{prefix}{metric}[organism={name}]": value
        for name, value in (("mouse", 0.5), ("yeast", 0.25))
        for prefix in ("", "protein_to_text_")
    }
    rows = {"rows[organism=mouse]": 20.0, "rows[organism=yeast]": 1234.0}
    grouped = replace(first, metrics={**first.metrics, **of_groups, **rows})
    lines = report_markdown(replace(results, scores=(grouped, *results.scores[1:]))).splitlines()
    place = lines.index(f"| {first.task} | {first.model} | organism=yeast | 1,234 | 0.250 | 0.250 |")
    assert lines[place + 1] == f"| {first.task} | {first.model} | organism=mouse | 20 | 0.500 | 0.500 |"
    assert sum("organism=" in line for line in lines) == 2
    assert "By group" not in report_markdown(results)


def test_it_says_whether_another_protocol_is_better_than_the_first() -> None:
    results = fake_results()
    first = results.scores[0]
    tuned = replace(first, protocol="fine-tuned", value=first.value - 0.04, low=first.value - 0.1, high=first.value)
    lines = report_markdown(replace(results, scores=(*results.scores, tuned))).splitlines()
    title = next(task.title for task in results.tasks if task.name == first.task)
    assert f"- {title}, fine-tuned: {tuned.value:.3f}; not above {first.protocol} (-0.040)" in lines
