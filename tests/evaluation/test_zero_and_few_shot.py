"""Classes by descriptions, by a few examples, and by both beside a supervised head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import make_benchmark, make_task, planted, shuffled

from protclip.errors import DataError
from protclip.evaluation.few_shot import SHOTS, few_shots, nonparametric
from protclip.evaluation.heads import fit_linear, linear_head
from protclip.evaluation.task import Benchmark
from protclip.evaluation.zero_shot import ensemble, zero_shot

pytestmark = pytest.mark.unit

CLASSES, WIDTH = 5, 16


def described(noise: float, seed: int = 0) -> tuple[Benchmark, NDArray[np.float32], NDArray[np.float32]]:
    """Proteins round the descriptions of their classes, and three templates round these."""
    generator = np.random.default_rng(seed)
    classes = generator.standard_normal((CLASSES, WIDTH))
    labels = generator.integers(0, CLASSES, 500)
    protein = (classes[labels] + noise * generator.standard_normal((500, WIDTH))).astype(np.float32)
    prompts = (classes + 0.3 * generator.standard_normal((3, CLASSES, WIDTH))).astype(np.float32)
    return make_benchmark(np.arange(500)[:, None], labels, num_classes=CLASSES), protein, prompts


def test_descriptions_tell_classes_and_shuffled_ones_do_not() -> None:
    benchmark, protein, prompts = described(0.5)
    found = zero_shot(make_task("zero-shot"), benchmark, protein, prompts, logit_scale=14.0)
    assert found.metrics["accuracy"] > 0.9
    assert found.predictions.sum(1) == pytest.approx(np.ones(100), abs=1e-5)
    none = zero_shot(make_task("zero-shot"), benchmark, protein, prompts[:, [1, 2, 3, 4, 0]], logit_scale=14.0)
    assert none.metrics["accuracy"] < 0.1
    alike = np.ones_like(prompts)
    same = zero_shot(make_task("zero-shot"), benchmark, protein, alike, logit_scale=14.0)
    assert same.metrics["accuracy"] == pytest.approx(1 / CLASSES)


def test_a_class_is_the_mean_of_its_templates_each_of_unit_length() -> None:
    benchmark, protein, prompts = described(1.0, seed=1)
    prompts[1] *= 100  # a template whose embeddings are long counts no more
    unit = prompts / np.linalg.norm(prompts, axis=2, keepdims=True)
    scores = (
        protein[benchmark.splits["test"].proteins_NK[:, 0]]
        @ (unit.mean(0) / np.linalg.norm(unit.mean(0), axis=1, keepdims=True)).T
    )
    found = zero_shot(make_task("zero-shot"), benchmark, protein, prompts, logit_scale=3.0)
    assert (found.predictions.argmax(1) == scores.argmax(1)).all()


def test_prompts_of_other_classes_are_refused() -> None:
    benchmark, protein, prompts = described(1.0)
    with pytest.raises(DataError, match=r"4 classes have prompts with embeddings, the benchmark has 5"):
        zero_shot(make_task("zero-shot"), benchmark, protein, prompts[:, :4], logit_scale=1.0)


def test_an_ensemble_is_better_than_each_of_few_examples_and_descriptions() -> None:
    benchmark, protein, prompts = described(1.6, seed=2)
    task, few = make_task("classes"), few_shots(benchmark, 2, seed=0)
    supervised = fit_linear(task, few, protein)
    both = ensemble(task, few, protein, prompts, supervised, logit_scale=14.0)
    assert both.metrics["accuracy"] >= linear_head(task, few, protein).metrics["accuracy"] + 0.1
    # Where descriptions say nothing the validation split does without them.
    useless = np.random.default_rng(0).standard_normal(prompts.shape).astype(np.float32)
    alone = ensemble(task, benchmark, protein, useless, fit_linear(task, benchmark, protein), logit_scale=100.0)
    assert alone.settings["zero_shot_weight"] == 0.0
    assert alone.metrics == linear_head(task, benchmark, protein).metrics


def test_shots_are_so_many_of_each_class_and_grow() -> None:
    benchmark, _ = planted("classes")
    before: set[int] = set()
    for shots in SHOTS:
        few = few_shots(benchmark, shots, seed=1).splits["train"]
        assert np.bincount(few.labels).tolist() == [shots] * 4
        assert before < set(few.proteins_NK[:, 0].tolist())
        before = set(few.proteins_NK[:, 0].tolist())
    assert before != set(few_shots(benchmark, 16, seed=2).splits["train"].proteins_NK[:, 0].tolist())
    everything = few_shots(benchmark, 10_000, seed=1).splits["train"]
    assert len(everything.labels) == len(benchmark.splits["train"].labels)


@pytest.mark.parametrize("method", ["neighbours", "prototypes"])
def test_examples_tell_classes_and_shuffled_ones_do_not(method: str) -> None:
    benchmark, protein, _ = described(0.5, seed=3)
    few = few_shots(benchmark, 8, seed=0)
    found = nonparametric(make_task("classes"), few, protein, method=method)  # type: ignore[arg-type]
    assert found.metrics["accuracy"] > 0.9
    none = nonparametric(make_task("classes"), shuffled(few), protein, method=method)  # type: ignore[arg-type]
    assert none.metrics["accuracy"] < 0.45


def test_likeness_is_that_of_a_loop() -> None:
    benchmark, protein, _ = described(1.0, seed=4)
    few = few_shots(benchmark, 3, seed=0)
    train = few.splits["train"]
    keep = train.labels != 2  # a class without examples is never the answer
    few = replace(
        few,
        splits={**few.splits, "train": replace(train, proteins_NK=train.proteins_NK[keep], labels=train.labels[keep])},
    )
    train = few.splits["train"]
    unit = protein / np.linalg.norm(protein, axis=1, keepdims=True)
    for method in ("neighbours", "prototypes"):
        found = nonparametric(make_task("classes"), few, protein, method=method)  # type: ignore[arg-type]
        for row, place in enumerate(few.splits["test"].proteins_NK[:5, 0]):
            likeness = np.zeros(CLASSES)
            for c in set(train.labels.tolist()):
                own = unit[train.proteins_NK[train.labels == c, 0]]
                own = own.mean(0, keepdims=True) if method == "prototypes" else own
                likeness[c] = sum(np.exp(-((unit[place] - one) ** 2).sum()) for one in own)
            assert found.predictions[row] == pytest.approx(likeness / likeness.sum(), rel=1e-4)
