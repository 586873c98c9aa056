"""Classes that the model knows by their descriptions alone (ProtST: Xu et al. 2023, arXiv:2301.12040, section 4.4).

Shapes: P proteins, X templates, C classes, D width of the common space, N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protclip.errors import DataError
from protclip.evaluation.features import checked, required_splits, unit
from protclip.evaluation.heads import LinearFit
from protclip.evaluation.scores import all_metrics, selection_of
from protclip.evaluation.task import Benchmark, Outcome, Task
from protclip.train.selection import best_first, cost

WEIGHTS = (1.0, 0.0, 0.25, 0.5, 2.0, 4.0)
"""Of zero-shot logits beside those of a supervised head; of equally good ones ProtST's own, which comes first."""


def zero_shot(
    task: Task,
    benchmark: Benchmark,
    protein_PD: NDArray[np.float32],
    prompt_XCD: NDArray[np.float32],
    *,
    logit_scale: float,
) -> Outcome:
    """The class whose description is nearest to the protein, by cosine.

    Args:
        task: of kind zero-shot.
        benchmark: its rows; no split but test is looked at.
        protein_PD: of the benchmark's proteins, in the common space.
        prompt_XCD: of each class's description in each template; a class is the mean over the templates.
        logit_scale: of the model, which makes cosines logits: exp of what is learned.

    Raises:
        DataError: if the embeddings do not fit the benchmark.
    """
    logits = _logits(benchmark, protein_PD, prompt_XCD, logit_scale)
    predictions = _softmax(logits("test"))
    metrics = all_metrics(task.kind, benchmark.splits["test"].labels, predictions)
    return Outcome(metrics=metrics, predictions=predictions, settings={"templates": len(prompt_XCD)})


def ensemble(
    task: Task,
    benchmark: Benchmark,
    protein_PD: NDArray[np.float32],
    prompt_XCD: NDArray[np.float32],
    supervised: LinearFit,
    *,
    logit_scale: float,
) -> Outcome:
    """Zero-shot logits beside those of a supervised head, with the weight that is best on the validation split.

    Args:
        task: of kind classes, whose classes the prompts describe.
        benchmark: its rows.
        protein_PD, prompt_XCD, logit_scale: as of ``zero_shot``.
        supervised: a head on the training split.

    Raises:
        DataError: if the embeddings do not fit the benchmark, or it lacks the validation split.
    """
    (valid,) = required_splits(benchmark, "valid")
    logits = _logits(benchmark, protein_PD, prompt_XCD, logit_scale)

    def together(split: str, weight: float) -> NDArray[np.float32]:
        # A softmax's logarithm is its logits, but for a number of the row.
        known_NC = np.log(np.maximum(supervised.predictions(split), np.finfo(np.float32).tiny))
        return _softmax(known_NC + weight * logits(split))

    selection = selection_of(task, as_authors=True)
    costs = {
        weight: cost(selection, all_metrics(task.kind, valid.labels, together("valid", weight))) for weight in WEIGHTS
    }
    weight = best_first(costs)[0]
    predictions = together("test", weight)
    metrics = all_metrics(task.kind, benchmark.splits["test"].labels, predictions)
    settings = {**supervised.settings, "zero_shot_weight": weight, "templates": len(prompt_XCD)}
    return Outcome(metrics=metrics, predictions=predictions, settings=settings)


def _logits(
    benchmark: Benchmark, protein_PD: NDArray[np.float32], prompt_XCD: NDArray[np.float32], logit_scale: float
) -> Callable[[str], NDArray[np.float32]]:
    if prompt_XCD.shape[1] != len(benchmark.classes) or not np.isfinite(prompt_XCD).all():
        raise DataError(
            f"{prompt_XCD.shape[1]} classes have prompts with embeddings, the benchmark has {len(benchmark.classes)}; "
            "or some of them are not finite. Embed one description of each class for every template."
        )
    protein_PD = unit(checked(protein_PD, benchmark))
    class_CD = unit(unit(prompt_XCD).mean(0))
    return lambda split: logit_scale * (protein_PD[benchmark.splits[split].proteins_NK[:, 0]] @ class_CD.T)


def _softmax(logits_NC: NDArray[np.float32]) -> NDArray[np.float32]:
    exp_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    probability_NC: NDArray[np.float32] = (exp_NC / exp_NC.sum(1, keepdims=True)).astype(np.float32)
    return probability_NC
