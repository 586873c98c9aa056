"""Heads on frozen features: planted signal, shuffled labels, and scikit-learn's own answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import make_benchmark, make_task, planted, shuffled
from safetensors.torch import load_file

from protclip.config import OptimizerConfig, Selection
from protclip.errors import DataError
from protclip.evaluation.baseline import by_composition, constant
from protclip.evaluation.features import of_rows, standardized
from protclip.evaluation.heads import fit_linear, linear_head
from protclip.evaluation.task import Benchmark, Kind, Outcome, Split
from protclip.evaluation.training import TuneConfig, Workplace
from protclip.evaluation.two_layers import two_layer_head
from protclip.metrics.labels import spearman
from protclip.train.checkpoints import best

pytestmark = pytest.mark.unit

KINDS: tuple[Kind, ...] = ("regression", "classes", "labels")
LIKE_CHANCE = {"regression": (-0.25, 0.25), "classes": (0.1, 0.4), "labels": (0.0, 0.6)}


def fit(kind: Kind, benchmark: Benchmark, features: np.ndarray, folder: Path | None) -> Outcome:
    """By the linear head, or by two layers in a folder."""
    if folder is None:
        return linear_head(make_task(kind), benchmark, features)
    config = TuneConfig(hidden_size=64, epochs=30, optimizer=OptimizerConfig(learning_rate=1e-2))
    return two_layer_head(
        make_task(kind), benchmark, features, config=config, seed=0, place=Workplace(run_dir=str(folder))
    )


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_planted_signal_is_found_and_shuffled_labels_are_not(kind: Kind, layers: int, tmp_path: Path) -> None:
    benchmark, features = planted(kind)
    metric = make_task(kind).metric
    found = fit(kind, benchmark, features, tmp_path / "planted" if layers == 2 else None)
    assert found.metrics[metric] >= 0.8
    assert len(found.predictions) == len(benchmark.splits["test"].labels)
    if kind == "regression":
        assert found.metrics["mae"] < 2  # in the unit of the labels, whose deviation is about 7
    none = fit(kind, shuffled(benchmark), features, tmp_path / "shuffled" if layers == 2 else None)
    low, high = LIKE_CHANCE[kind]
    assert low <= none.metrics[metric] <= high
    assert none.metrics[metric] <= constant(make_task(kind), benchmark).metrics[metric] + 0.25


def test_pairs_have_features_in_which_neither_comes_first() -> None:
    features_NKD = torch.randn(5, 2, 3)
    assert torch.equal(of_rows(features_NKD), of_rows(features_NKD.flip(1)))
    assert of_rows(features_NKD).shape == (5, 6)
    benchmark, features = planted("labels", pairs=True)
    assert fit("labels", benchmark, features, None).metrics["f1_max"] >= 0.8


def test_features_are_scaled_by_the_training_split_alone() -> None:
    benchmark, features = planted("regression")
    features[:, 0] = 7.0
    rows = standardized(features, benchmark)
    train = features[benchmark.splits["train"].proteins_NK[:, 0], 1:]
    for name, split in benchmark.splits.items():
        wanted = (features[split.proteins_NK[:, 0], 1:] - train.mean(0)) / train.std(0)
        assert rows[name][:, 1:].numpy() == pytest.approx(wanted, abs=1e-5)
        assert not rows[name][:, 0].any()  # a constant says nothing


def test_ridge_minimises_what_it_says() -> None:
    benchmark, features = planted("regression")
    fitted = fit_linear(make_task("regression"), benchmark, features)
    rows = standardized(features, benchmark)
    x, y = rows["train"].double().numpy(), benchmark.splits["train"].labels
    weight = np.linalg.solve(x.T @ x / len(x) + fitted.settings["penalty"] * np.eye(12), x.T @ (y - y.mean()) / len(x))
    assert fitted.predictions("test") == pytest.approx(rows["test"].double().numpy() @ weight + y.mean(), abs=1e-4)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_logistic_regression_is_that_of_scikit_learn(kind: Kind) -> None:
    from sklearn.linear_model import LogisticRegression

    benchmark, features = planted(kind, seed=3)
    fitted = fit_linear(make_task(kind), benchmark, features)
    rows = standardized(features, benchmark)
    train, size = benchmark.splits["train"].labels, len(rows["train"])
    model = LogisticRegression(C=1 / (size * float(fitted.settings["penalty"])), max_iter=2000, tol=1e-8)
    x, test = rows["train"].numpy(), rows["test"].numpy()
    if kind == "classes":
        wanted = model.fit(x, train).predict_proba(test)
    else:
        wanted = np.stack([model.fit(x, train[:, c]).predict_proba(test)[:, 1] for c in range(4)], axis=1)
    assert fitted.predictions("test") == pytest.approx(wanted, abs=5e-3)


def test_the_penalty_is_chosen_by_what_the_authors_choose_by_or_by_the_metric() -> None:
    benchmark, features = planted("regression")
    task = make_task("regression", select_by="mae")
    assert linear_head(task, benchmark, features).settings["selected_by"] == "mae"
    assert linear_head(task, benchmark, features, as_authors=False).settings["selected_by"] == "spearman"
    assert linear_head(make_task("regression"), benchmark, features).settings["selected_by"] == "spearman"


def test_a_head_of_two_layers_finds_what_no_line_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((900, 2)).astype(np.float32)
    benchmark = make_benchmark(
        np.arange(900)[:, None], (features[:, 0] * features[:, 1] > 0).astype(np.int64), num_classes=2
    )
    assert fit("classes", benchmark, features, None).metrics["accuracy"] < 0.65
    assert fit("classes", benchmark, features, tmp_path).metrics["accuracy"] > 0.9


def test_the_best_epoch_predicts_and_a_finished_head_is_not_trained_again(tmp_path: Path) -> None:
    benchmark, features = planted("classes")
    benchmark = shuffled(benchmark)
    first, again = (fit("classes", benchmark, features, tmp_path) for _ in range(2))
    assert float(first.settings["best_epoch"]) < float(first.settings["epochs"])
    stored = load_file(f"{best(str(tmp_path), Selection(metric='accuracy', mode='max'))}/model.safetensors")
    inner = (standardized(features, benchmark)["test"] @ stored["0.weight"].T + stored["0.bias"]).relu()
    wanted = (inner @ stored["2.weight"].T + stored["2.bias"]).softmax(1)
    assert first.predictions == pytest.approx(wanted.numpy(), abs=1e-5)
    assert np.array_equal(first.predictions, again.predictions)
    assert first.settings == again.settings


def test_baselines_know_the_frequencies_and_the_composition() -> None:
    benchmark, _ = planted("classes")
    frequencies = np.bincount(benchmark.splits["train"].labels) / len(benchmark.splits["train"].labels)
    found = constant(make_task("classes"), benchmark)
    assert found.predictions[0] == pytest.approx(frequencies)
    majority = (benchmark.splits["test"].labels == frequencies.argmax()).mean()
    assert found.metrics["accuracy"] == pytest.approx(majority)
    assert constant(make_task("regression"), planted("regression")[0]).metrics["spearman"] == 0.0
    generator = np.random.default_rng(1)
    sequences = ["".join(generator.choice(list("ACDKW"), 40)) for _ in range(300)]
    charge = np.array([sequence.count("K") - sequence.count("D") for sequence in sequences], float)
    charged = make_benchmark(np.arange(300)[:, None], charge, sequences=sequences)
    assert by_composition(make_task("regression"), charged).metrics["spearman"] > 0.95


def test_features_that_cannot_be_are_refused() -> None:
    benchmark, features = planted("regression")
    task = make_task("regression")
    with pytest.raises(DataError, match=r"599 proteins have features, the benchmark has 600; embed the"):
        linear_head(task, benchmark, features[:-1])
    features[7] = np.nan
    with pytest.raises(DataError, match=r"1 of 600 proteins are not finite, the first of them those of 'P7'; look at"):
        linear_head(task, benchmark, features)
    with pytest.raises(DataError, match=r"no rows to choose by: its split valid is missing"):
        linear_head(task, replace(benchmark, splits={"train": benchmark.splits["train"]}), features)


@pytest.mark.slow
def test_a_frozen_head_on_real_embeddings_of_esm2_is_as_good_as_scikit_learns(real_data: Path) -> None:
    """Five folds of β-lactamase; scikit-learn scales, chooses its own penalty by cross-validation, and fits."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    stored = np.load(real_data / "benchmarks/beta_lactamase/esm2_8m_mean_embeddings.npz", allow_pickle=False)
    features, fitness = stored["emb"], stored["fitness"].astype(np.float64)
    folds = np.array_split(np.random.default_rng(0).permutation(len(fitness)), 5)
    ours, theirs = [], []
    for i, test in enumerate(folds):
        valid, *train = [folds[(i + j) % 5] for j in range(1, 5)]
        rows = {"train": np.concatenate(train), "valid": valid, "test": test}
        benchmark = Benchmark(
            ids=tuple(map(str, range(len(fitness)))),
            sequences=tuple(map(str, range(len(fitness)))),
            splits={name: Split(proteins_NK=of[:, None], labels=fitness[of]) for name, of in rows.items()},
        )
        ours.append(linear_head(make_task("regression"), benchmark, features).metrics["spearman"])
        model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 5, 15)))
        model.fit(features[rows["train"]], fitness[rows["train"]])
        theirs.append(spearman(fitness[test], model.predict(features[test])))
    print(f"ρ in five folds: ours {np.round(ours, 4)}, scikit-learn's {np.round(theirs, 4)}")
    assert np.mean(ours) > 0.5
    assert np.abs(np.subtract(ours, theirs)).max() < 0.01
