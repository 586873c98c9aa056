"""``report.html`` in a run's folder: the run at a glance, one file that needs neither network nor script."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from protclip import files
from protclip.config import SelectionConfig
from protclip.metrics.retrieval import CUTOFFS
from protclip.reporting import curves
from protclip.reporting.page import page, table
from protclip.train.selection import best_first, cost, describe

REPORT, CONFIG, METRICS, STEPS = "report.html", "config.yaml", "metrics.json", "steps.jsonl"
TERMS = {"loss": "weighted sum", "gc": "GC", "bsr": "BSR", "pda": "PDA", "mlm": "MLM"}
"""Keys of the loss and its terms, and what the report calls them."""
LEGEND = "Numbers in the legends are the latest. A pale band is the range of the steps that a point averages."
WAYS = {"text_to_protein": "text → protein", "protein_to_text": "protein → text"}


def write_report(run_dir: str) -> None:
    """Write ``report.html`` from what the run's folder holds so far: at each epoch's end, and when the run is over.

    It reads ``config.yaml``, ``metrics.json`` and ``steps.jsonl``, as far as they are there. A line of the last is one
    logged step: ``step``, ``epoch``, ``loss`` and its terms, ``learning_rate``, ``grad_norm``, ``tokens_per_s``,
    ``padding_share`` and ``wait_share`` (0 to 1), ``memory_gb``, and ``skipped``, the steps left out since the line
    before. Any of them may be missing. A resumed run repeats steps: the later line counts.

    Args:
        run_dir: path or fsspec URL.

    Raises:
        DataError: if ``metrics.json`` is not JSON.
        ConfigError: if the report cannot be written.
    """
    metrics_path = files.join(run_dir, METRICS)
    metrics = files.read_json(metrics_path) if files.exists(metrics_path) else {"history": []}
    page = report_page(
        run_dir,
        config_yaml=_text(files.join(run_dir, CONFIG)),
        metrics=metrics,
        step_lines=_text(files.join(run_dir, STEPS)).splitlines(),
    )
    with files.atomic_write(files.join(run_dir, REPORT)) as stream:
        stream.write(page.encode())


def report_page(run_dir: str, *, config_yaml: str, metrics: Mapping[str, Any], step_lines: Sequence[str]) -> str:
    """The page as HTML; arguments as ``write_report`` reads them."""
    rows, num_unreadable = _step_rows(step_lines)
    history: list[dict[str, Any]] = metrics["history"]
    figures = "".join([*_epoch_figures(history), *_step_figures(rows)])
    note = ""
    if num_unreadable:
        note = (
            f"<p>{num_unreadable} lines of {STEPS} cannot be read, as a killed run leaves them, and are left out.</p>"
        )
    body = (
        f"<h1>Pretraining {html.escape(run_dir)}</h1>"
        f"{_summary(metrics, rows)}{_retrieval(metrics)}"
        f"<h2>Curves</h2><p>{LEGEND if figures else 'Nothing is logged yet.'}</p>"
        f'<div class="curves">{figures}</div>{note}'
        f"<h2>Details</h2><details><summary>Epochs</summary>{_epochs(history)}</details>"
        f"<details><summary>Settings</summary><pre>{html.escape(config_yaml)}</pre></details>"
    )
    return page(run_dir.rstrip("/").rsplit("/", 1)[-1], body, style=curves.STYLE)


def _text(path: str) -> str:
    if not files.exists(path):
        return ""
    with files.open_read(path) as stream:
        return stream.read().decode(errors="replace")


def _step_rows(lines: Iterable[str]) -> tuple[list[dict[str, Any]], int]:
    """The logged steps in order, and the number of lines that are none."""
    rows: list[dict[str, Any]] = []
    num_unreadable = 0
    for line in lines:
        try:
            row = json.loads(line)
            step = row["step"]
        except (ValueError, TypeError, KeyError):
            num_unreadable += 1
            continue
        while rows and rows[-1]["step"] >= step:  # a resumed run went back to its checkpoint
            rows.pop()
        rows.append(row)
    return rows, num_unreadable


def _summary(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    history = metrics["history"]
    trained = [entry for entry in history if entry["epoch"] > 0]
    finished = "best_epoch" in metrics
    last = history[-1] if history else {"epoch": 0, "step": 0, "seconds": 0.0}
    facts = {"State": "finished" if finished else f"unfinished, {last['epoch']} epochs done"}
    if trained:
        best = _best(metrics)
        facts["Best epoch"] = f"{best['epoch']}{'' if finished else ' so far'}"
        facts["Selected by"] = describe(_selection(metrics))
        facts["Validation loss"] = f"{best['valid']['loss']:.4f} of {_measured_on(best['valid'])}"
    steps = max([last["step"], *(row["step"] for row in rows[-1:])])
    facts["Steps"] = f"{steps:,}"
    if any("skipped" in row for row in rows):
        facts["Skipped steps"] = f"{sum(int(row.get('skipped') or 0) for row in rows):,}"
    facts["Time"] = tqdm.format_interval(metrics.get("seconds", last["seconds"]))
    if rates := [row["tokens_per_s"] for row in rows if row.get("tokens_per_s") is not None]:
        facts["Throughput"] = f"{sum(rates) / len(rates):,.0f} tokens/s on average"
    cells = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{cells}</dl>"


def _best(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The epoch that ``best`` is made of, or would be so far; the first one where none has a finite measure."""
    history: list[dict[str, Any]] = metrics["history"]
    if "best_epoch" in metrics:
        return {"epoch": metrics["best_epoch"], "valid": metrics["valid"]}
    trained = {entry["epoch"]: entry for entry in history if entry["epoch"] > 0}
    selection = _selection(metrics)
    ordered = best_first({epoch: cost(selection, entry["valid"]) for epoch, entry in trained.items()})
    return trained[ordered[0] if ordered else min(trained)]


def _selection(metrics: Mapping[str, Any]) -> SelectionConfig:
    """What epochs are selected by; runs of earlier versions do not say it, and went by loss."""
    return SelectionConfig(**metrics.get("selection", {}))


def _retrieval(metrics: Mapping[str, Any]) -> str:
    """What is found on the validation pairs by the best epoch, the untrained model and chance."""
    history = metrics["history"]
    if not history:
        return ""
    best = _best(metrics) if history[-1]["epoch"] > 0 else None
    models = {} if best is None else {f"epoch {best['epoch']}": best["valid"]}
    if history[0]["epoch"] == 0:
        models["untrained"] = history[0]["valid"]
    measures = {**{f"recall@{k}": ".3f" for k in CUTOFFS}, "median_rank": ",.0f", "mrr": ".3f"}
    rows = [["", *(name.replace("_", " ").replace("mrr", "MRR") for name in measures)]]
    for way, label in WAYS.items():
        for model, valid in models.items():
            rows.append([f"{label}, {model}", *(format(valid[way][name], form) for name, form in measures.items())])
    valid = history[-1]["valid"]
    rows.append(["chance", *(f"{valid['chance'][name]:.3f}" if name in valid["chance"] else "" for name in measures)])
    about = (
        f"Of {_measured_on(valid)}. Pairs of one text are right answers to each other; chance is the recall of a "
        "random order with the same right answers."
    )
    return f"<h2>Retrieval on the validation pairs</h2>{table(rows)}<p>{about}</p>"


def _measured_on(valid: Mapping[str, Any]) -> str:
    return f"{valid['num_pairs']:,} pairs ({valid['num_proteins']:,} proteins, {valid['num_texts']:,} texts)"


def _epochs(history: Sequence[Mapping[str, Any]]) -> str:
    header = ["epoch", "steps", "time", "training loss", "validation loss"]
    rows = [[*header, *(f"recall@10 {label}" for label in WAYS.values())]]
    for entry in history:
        valid, train = entry["valid"], entry["train"]
        cells = [str(entry["epoch"]), f"{entry['step']:,}", tqdm.format_interval(entry["seconds"])]
        cells += ["" if train is None else f"{train['loss']:.4f}", f"{valid['loss']:.4f}"]
        rows.append([*cells, *(f"{valid[way]['recall@10']:.3f}" for way in WAYS)])
    return table(rows)


def _epoch_figures(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Curves over the epochs, epoch 0 being the untrained model."""
    if not history:
        return []
    valid = [(entry["epoch"], entry["valid"]) for entry in history]
    losses = {
        f"{label}, validation": [(epoch, terms[term]) for epoch, terms in valid if term in terms]
        for term, label in _terms([terms for _, terms in valid]).items()
    }
    losses["weighted sum, training"] = [(entry["epoch"], entry["train"]["loss"]) for entry in history if entry["train"]]
    made = [curves.figure("Validation loss", losses, x_label="epoch", y_label="loss (nats)")]
    for name in ("recall@10", "recall@1"):
        recalls = {label: [(epoch, terms[way][name]) for epoch, terms in valid] for way, label in WAYS.items()}
        title = f"{name} of {valid[-1][1]['num_pairs']:,} validation pairs"
        levels = {"chance": valid[-1][1]["chance"][name]}
        made.append(
            curves.figure(title, recalls, x_label="epoch", y_label="share found", levels=levels, from_zero=True)
        )
    return made


def _step_figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Curves over the optimizer steps."""

    def points(key: str, factor: float = 1.0) -> list[tuple[float, float]]:
        return [(row["step"], row[key] * factor) for row in rows if row.get(key) is not None]

    losses = {label: points(key) for key, label in _terms(rows).items()}
    speed = {"all workers": points("tokens_per_s")}
    shares = {"padding, of the tokens": points("padding_share", 100), "waiting, of the time": points("wait_share", 100)}
    return [
        curves.figure("Training loss", losses, x_label="step", y_label="loss (nats)"),
        curves.figure("Speed", speed, x_label="step", y_label="tokens/s", from_zero=True),
        curves.figure("Padding, and waiting for data", shares, x_label="step", y_label="%", from_zero=True),
        curves.figure("Learning rate", {"highest": points("learning_rate")}, x_label="step", y_label="rate"),
        curves.figure("Gradient norm", {"L2": points("grad_norm")}, x_label="step", y_label="norm", from_zero=True),
        curves.figure("Memory", {"most in use": points("memory_gb")}, x_label="step", y_label="GB", from_zero=True),
    ]


def _terms(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The terms that these hold; one alone is the loss and is not drawn twice."""
    held = {key: label for key, label in TERMS.items() if any(key in row for row in rows)}
    return {"loss": "loss"} if set(held) == {"loss", "gc"} else held
