"""Which protocols a task has, and what each of them needs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed import ProcessGroup

from protclip import files
from protclip.checkpoints import checkpoint_folder
from protclip.evaluation.baseline import by_composition, constant
from protclip.evaluation.few_shot import few_shots, nonparametric
from protclip.evaluation.graph import bridged_graph, graph
from protclip.evaluation.heads import fit_linear, linear_head
from protclip.evaluation.retrieval import retrieval
from protclip.evaluation.scores import row_metric
from protclip.evaluation.similarity import similarity
from protclip.evaluation.task import Benchmark, Outcome, Task
from protclip.evaluation.task import Kind as TaskKind
from protclip.evaluation.training import FINE_TUNING, TuneConfig, Workplace
from protclip.evaluation.vectors import Kind, Vectors
from protclip.evaluation.zero_shot import ensemble, zero_shot
from protclip.metrics.intervals import Interval, bootstrap_interval
from protclip.model.tensors import open_weights

Head = Literal["linear", "two-layers", "few-shot", "ensemble", "fine-tuned", "bridge"]
"""What is trained for a task: ridge or logistic regression, or two layers, on the features of the frozen encoder;
classes of a few examples each; for prompts, the linear head of the same classes beside them; two layers with the
encoder below them; for graphs, a bridge between the two spaces."""
TUNED: tuple[TaskKind, ...] = ("regression", "classes", "labels")
"""Kinds of tasks for which an encoder can be tuned."""
FINE_TUNED: Head = "fine-tuned"
"""The protocol too."""
SHOTS = (1, 5, 10)
"""Examples of each class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model as protocols see it."""

    checkpoint: str
    vectors: Vectors
    run_dir: str
    """Where trainings leave their checkpoints, to go on from them."""

    def logit_scale(self) -> float:
        """By which the model multiplies cosines."""
        with open_weights(files.join(checkpoint_folder(self.checkpoint), "model.safetensors")) as readers:
            return float(np.exp(readers["logit_scale"].get_tensor("logit_scale").item()))


def needs(task: Task, heads: Sequence[Head]) -> tuple[Kind, ...]:
    """The vectors that its protocols take."""
    if task.kind == "zero-shot" and "ensemble" in heads:
        return ("projection", "texts", "hidden")
    if task.kind in ("retrieval", "zero-shot", "graph"):
        return ("projection", "texts")
    return ("hidden",)


def predict(
    task: Task, benchmark: Benchmark, model: Model, *, heads: Sequence[Head], seed: int
) -> Iterator[tuple[str, Outcome]]:
    """The outcome of each protocol of a task, by its name; those without a seed with the first seed alone.

    Args:
        task: which kind it is says which protocols.
        benchmark: its rows.
        model: what is evaluated.
        heads: what is trained.
        seed: of what is drawn.

    Raises:
        DataError: if a protein or text has no embedding.
    """
    if task.kind in ("retrieval", "zero-shot", "graph"):
        protein_PD = model.vectors.proteins(benchmark.sequences, "projection")
        text_TD = model.vectors.texts(benchmark.texts)
        if task.kind == "retrieval" and seed == 0:
            yield "cosine", retrieval(benchmark, protein_PD, text_TD)
        elif task.kind == "zero-shot" and seed == 0:
            prompts: dict[str, Any] = {"prompt_XCD": text_TD[None], "logit_scale": model.logit_scale()}
            yield "prompts", zero_shot(task, benchmark, protein_PD, **prompts)
            if "ensemble" in heads:
                hidden_PH = model.vectors.proteins(benchmark.sequences, "hidden")
                head = fit_linear(replace(task, kind="classes"), benchmark, hidden_PH)
                yield "ensemble", ensemble(task, benchmark, protein_PD, supervised=head, **prompts)
        elif task.kind == "graph":
            yield from _graph(task, benchmark, protein_PD, text_TD, model, heads, seed)
        return
    feature_PD = model.vectors.proteins(benchmark.sequences, "hidden")
    if task.kind == "similarity":
        if seed == 0:
            yield "distance", similarity(task, benchmark, feature_PD)
        return
    yield from _heads(task, benchmark, feature_PD, model, heads, seed)


def baseline(task: Task, benchmark: Benchmark, metrics: Mapping[str, float]) -> tuple[float | None, str]:
    """What a prediction that sees no model reaches, the better of those that there are, and which it is.

    Args:
        task: which kind it is says which predictions.
        benchmark: its rows.
        metrics: of any model on it: those of retrieval and graphs have chance beside them.
    """
    if task.kind in ("regression", "classes", "labels"):
        found = {"constant": constant(task, benchmark)}
        if benchmark.splits["test"].proteins_NK.shape[1] == 1:
            found["amino-acid composition"] = by_composition(task, benchmark)
        name = max(found, key=lambda one: found[one].metrics[task.metric])
        return found[name].metrics[task.metric], name
    if task.kind == "zero-shot":
        return 1 / len(benchmark.texts), "chance"
    if task.kind in ("retrieval", "graph"):
        return metrics[f"chance_{task.metric}"], "chance"
    return None, ""


def interval(task: Task, benchmark: Benchmark, predictions: Sequence[NDArray[Any]]) -> Interval:
    """Of a task's metric, over the rows of the test split; predictions are those of each seed."""
    labels = benchmark.splits["test"].labels
    metrics = [row_metric(task.metric, labels, one) for one in predictions]
    return bootstrap_interval(metrics, len(predictions[0]), seed=0)


def tuned(
    task: Task,
    benchmark: Benchmark,
    model: Model,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    group: ProcessGroup | None = None,
    preemption: Callable[[], object | None] = lambda: None,
) -> Outcome:
    """The encoder tuned for a task; all workers call it together, as ``fine_tune`` has it."""
    from protclip.evaluation.finetune import fine_tune
    from protclip.trained_model import ProtCLIP

    run_dir = files.join(model.run_dir, "fine-tuned")
    place = Workplace(run_dir=run_dir, device=device, group=group, preemption=preemption)
    network = ProtCLIP.from_pretrained(model.checkpoint)
    return fine_tune(task, benchmark, network, config=FINE_TUNING, seed=seed, place=place)


def _heads(
    task: Task, benchmark: Benchmark, feature_PD: np.ndarray, model: Model, heads: Sequence[Head], seed: int
) -> Iterator[tuple[str, Outcome]]:
    if "linear" in heads and seed == 0:
        yield "linear", linear_head(task, benchmark, feature_PD)
    if "two-layers" in heads:
        from protclip.evaluation.two_layers import two_layer_head

        place = Workplace(run_dir=files.join(model.run_dir, "two-layers"))
        yield "two layers", two_layer_head(task, benchmark, feature_PD, config=TuneConfig(), seed=seed, place=place)
    if "few-shot" in heads and task.kind == "classes":
        unit_PD = feature_PD / np.maximum(np.linalg.norm(feature_PD, axis=1, keepdims=True), 1e-12)
        for shots in SHOTS:
            few = few_shots(benchmark, shots, seed=seed)
            yield f"{shots} shots, neighbours", nonparametric(task, few, unit_PD)
            yield f"{shots} shots, prototypes", nonparametric(task, few, unit_PD, method="prototypes")
    if FINE_TUNED in heads:
        yield FINE_TUNED, tuned(task, benchmark, model, seed=seed)


def _graph(
    task: Task,
    benchmark: Benchmark,
    protein_PD: np.ndarray,
    text_TD: np.ndarray,
    model: Model,
    heads: Sequence[Head],
    seed: int,
) -> Iterator[tuple[str, Outcome]]:
    direction: Any = "protein_to_text" if task.query == "protein" else "text_to_protein"
    if seed == 0:
        yield "cosine", graph(benchmark, protein_PD, text_TD, direction=direction)
    if "bridge" in heads:
        place = Workplace(run_dir=files.join(model.run_dir, "bridge"))
        yield "bridge", bridged_graph(benchmark, protein_PD, text_TD, direction=direction, seed=seed, place=place)
