"""The report of an evaluation: a page that needs nothing else, and the same tables as Markdown."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from protclip import files
from protclip.evaluation.results import LeakResult, ModelResult, Results, Role, Score, TaskResult
from protclip.reporting import curves, dots
from protclip.reporting.dots import Dot, Mark, Series, dot_plot
from protclip.reporting.page import page, table

PAGE, MARKDOWN = "report.html", "report.md"
METRICS = {
    "spearman": "Spearman's ρ",
    "accuracy": "accuracy",
    "f1_max": "F1-max",
    "micro_f1": "micro F1",
    "recall@1": "recall@1",
    "mrr": "MRR",
}
"""The metric of a task, for people."""
_MARKS: dict[Role, Mark] = {"checkpoint": "full", "not pretrained": "hollow", "untrained": "cross"}
LEGEND = (
    "A bar is the 95 % interval over the rows of the test split; it knows nothing of other seeds. A trivial prediction "
    "sees no model: the table says which one."
)


def write_report(folder: str, results: Results) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html``.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    results.write(folder)
    for name, text in ((MARKDOWN, report_markdown(results)), (PAGE, report_page(results))):
        with files.atomic_write(files.join(folder, name)) as stream:
            stream.write(text.encode())


def report_page(results: Results) -> str:
    """The page as HTML."""
    names = ", ".join(model.name for model in results.of_role("checkpoint"))
    sections = "".join(
        f"<h2>{html.escape(title)}</h2>{''.join(f'<p>{html.escape(line)}</p>' for line in before)}{table(rows)}"
        for title, before, rows in _tables(results)
    )
    facts = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(results))
    settings = html.escape(json.dumps(results.settings, indent=2, sort_keys=True))
    body = (
        f"<h1>Evaluation of {html.escape(names)}</h1><dl>{facts}</dl>{_verdict_list(results)}"
        f"<h2>All tasks</h2>{_plot(results)}<p>{LEGEND}</p>{sections}"
        f"<h2>Details</h2><details><summary>Settings</summary><pre>{settings}</pre></details>"
    )
    return page(names, body, style=f"{curves.STYLE}\n{dots.STYLE}")


def report_markdown(results: Results) -> str:
    """The same without the picture."""
    lines = [f"# Evaluation of {', '.join(model.name for model in results.of_role('checkpoint'))}", ""]
    lines += [f"- {name}: {value}" for name, value in _facts(results)]
    lines += ["", *[f"- {line}" for line in _verdicts(results)]]
    for title, before, rows in _tables(results):
        header, *body = rows
        lines += ["", f"## {title}", "", *before]
        lines += [""] if before else []
        lines += [_markdown_row(header), _markdown_row(["---"] * len(header)), *map(_markdown_row, body)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '¦') for cell in cells)} |"


def _facts(results: Results) -> Iterable[tuple[str, str]]:
    yield "Tasks", f"{len(results.tasks)} run, {len(results.missing)} left out"
    yield "Time", tqdm.format_interval(results.seconds)
    yield from ((name.capitalize(), value) for name, value in results.hardware.items())
    yield "Software", f"protclip {results.software}"


def _plot(results: Results) -> str:
    titles = {task.name: _titled(task) for task in results.tasks}
    paper = {
        titles[task.name]: Dot(value=task.paper[task.metric]) for task in results.tasks if task.metric in task.paper
    }
    trivial = {titles[task.name]: Dot(value=task.baseline) for task in results.tasks if task.baseline is not None}
    series = [Series(name="trivial prediction", mark="bar", dots=trivial)]
    for role in ("untrained", "not pretrained", "checkpoint"):
        for model in results.of_role(role):
            scores = [(task, results.best(task, model.name)) for task in titles]
            found = {
                titles[task]: Dot(value=score.value, low=score.low, high=score.high)
                for task, score in scores
                if score is not None
            }
            series.append(Series(name=model.name, mark=_MARKS[role], dots=found))
    series.append(Series(name="the paper's ProtCLIP", mark="diamond", dots=paper))
    return dot_plot("All tasks", [*titles.values()], [one for one in series if one.dots], x_label="the task's metric")


def _titled(task: TaskResult) -> str:
    return f"{task.title}, {METRICS.get(task.metric, task.metric)}{' *' if task.note else ''}"


def _verdict_list(results: Results) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in _verdicts(results))}</ul>"


def _verdicts(results: Results) -> Iterable[str]:
    """Of each task whether the first checkpoint beats what it should, and its other protocols the first of them."""
    model, *_ = results.of_role("checkpoint")
    for task in results.tasks:
        score = results.best(task.name, model.name)
        if score is None:
            continue
        references = [(task.baseline_name, task.baseline)]
        for other in results.models:
            found = results.best(task.name, other.name)
            if other.role != "checkpoint" and other.checkpoint == model.checkpoint and found is not None:
                references.append((other.name, found.value))
        said = [_held_against(score, name, value) for name, value in references if value is not None]
        yield f"{task.title}: {score.value:.3f}; {', '.join(said) or 'nothing to compare it with'}"
        for further in results.scores:
            if (further.task, further.model) == (task.name, model.name) and further is not score:
                held = _held_against(further, score.protocol, score.value)
                yield f"{task.title}, {further.protocol}: {further.value:.3f}; {held}"


def _held_against(score: Score, name: str, value: float) -> str:
    how = "above" if score.low > value else "not clearly above" if score.value > value else "not above"
    return f"{how} {name} ({score.value - value:+.3f})"


Table = tuple[str, list[str], list[list[str]]]
"""Title, lines before it, rows with the header first."""


def _tables(results: Results) -> Iterable[Table]:
    yield _scores(results)
    others = [score for score in results.scores if score is not results.best(score.task, score.model)]
    if others:
        yield "Other protocols", [], [["task", "model", "protocol", "score", "interval"], *map(_score_row, others)]
    yield (
        "All metrics",
        [],
        [
            ["task", "model", "protocol", "metrics", "chosen on the validation split"],
            *(
                [
                    score.task,
                    score.model,
                    score.protocol,
                    ", ".join(f"{name} {value:.3f}" for name, value in score.metrics.items() if "[" not in name),
                    ", ".join(f"{name} {value}" for name, value in score.settings.items()),
                ]
                for score in results.scores
            ),
        ],
    )
    if groups := list(_group_rows(results)):
        before = ["Rows of the test split alone, each among all candidates."]
        yield "By group", before, [["task", "model", "group", "rows", "score", "protein → text"], *groups]
    yield (
        "What was seen before",
        [
            "Proteins of each test split whose sequence, or one of at least 50 % identity (estimated by k-mers), was "
            "trained on. Unknown: the pairs of the checkpoint are gone, or it does not say which they were."
        ],
        [["task", "trained on", "test proteins", "identical", "similar"], *map(_leak_row, results.leaks)],
    )
    yield (
        "Data",
        [],
        [
            ["task", "rows", "differs from the published task", "SHA-256"],
            *(
                [
                    task.name,
                    ", ".join(f"{name} {number:,}" for name, number in task.rows.items()),
                    task.note or "no",
                    ", ".join(f"{name} {digest[:12]}…" for name, digest in task.files.items()),
                ]
                for task in results.tasks
            ),
        ],
    )
    if results.missing:
        yield "Left out", [], [["task", "why"], *([missing.name, missing.why] for missing in results.missing)]


def _scores(results: Results) -> Table:
    notes = [f"* {task.title}: {task.note}" for task in results.tasks if task.note]
    models: list[ModelResult] = list(results.models)
    header = ["task", "metric", "protocol", *(model.name for model in models), "trivial prediction", "paper"]
    rows = [header]
    for task in results.tasks:
        scores = [results.best(task.name, model.name) for model in models]
        protocol = next((score.protocol for score in scores if score is not None), "")
        trivial = "" if task.baseline is None else f"{task.baseline:.3f} ({task.baseline_name})"
        paper = ", ".join(f"{METRICS.get(name, name)} {value:.3f}" for name, value in task.paper.items())
        cells = ["" if score is None else _spelled(score) for score in scores]
        name = f"{task.title}{' *' if task.note else ''}"
        rows.append([name, METRICS.get(task.metric, task.metric), protocol, *cells, trivial, paper or "not known"])
    return "Scores", notes, rows


def _spelled(score: Score) -> str:
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def _score_row(score: Score) -> list[str]:
    return [score.task, score.model, score.protocol, f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"]


def _group_rows(results: Results) -> Iterable[list[str]]:
    """Of retrieval, the largest groups first."""
    metric_of = {task.name: task.metric for task in results.tasks}
    for score in results.scores:
        groups = {
            name.removeprefix("rows[").removesuffix("]"): rows
            for name, rows in score.metrics.items()
            if name.startswith("rows[")
        }
        for group in sorted(groups, key=lambda one: -groups[one]):
            metric = f"{metric_of[score.task]}[{group}]"
            numbers = (score.metrics[metric], score.metrics[f"protein_to_text_{metric}"])
            yield [score.task, score.model, group, f"{groups[group]:,.0f}", *(f"{number:.3f}" for number in numbers)]


def _leak_row(leak: LeakResult) -> list[str]:
    known = ["unknown" if number is None else f"{number:,}" for number in (leak.identical, leak.similar)]
    return [leak.task, leak.trained_on, f"{leak.proteins:,}", *known]
