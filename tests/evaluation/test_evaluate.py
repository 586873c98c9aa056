"""The stage ``evaluate`` from files to a report, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from benchmark_files import write_folder
from click.testing import CliRunner
from pairs_folders import row, write_pairs
from tiny_model import random_pairs, tiny_model

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.evaluation import evaluate as stage
from protclip.evaluation import predicting
from protclip.evaluation.compare import compare
from protclip.evaluation.evaluate import evaluate
from protclip.evaluation.reading import benchmark_of
from protclip.evaluation.references import named_models, write_references
from protclip.evaluation.results import Results, read_results
from protclip.evaluation.settings import EvaluateConfig
from protclip.evaluation.vectors import write_inputs
from protclip.manifest import read_manifest
from protclip.protanno.shards import PROPERTIES, read_pairs
from protclip.trained_model import ProtCLIP
from protclip.uniprot.entry import Entry
from ray_jobs.evaluate.main import main

pytestmark = pytest.mark.unit

FEW = (
    "beta_lactamase",
    "subcellular_localization",
    "shs27k_random",
    "lin_mf",
    "subcellular_zero_shot",
    "kg_protein_mf",
)


def entries(table: pa.Table) -> list[dict[str, Any]]:
    columns = ("accession", "sequence", *PROPERTIES)
    return [row(Entry(**{name: one[name] for name in columns})) for one in table.to_pylist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Benchmarks, pairs, and two models, of which one says that it was trained on them."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_folder(folder / "data", seed=0)
    pairs = random_pairs(60)
    shards = {"train-00000-of-00001": pairs.slice(0, 40), "test-00000-of-00001": pairs.slice(38)}
    write_pairs(folder / "pairs", {name: entries(table) for name, table in shards.items()})
    fingerprint = read_pairs(str(folder / "pairs")).fingerprint
    run = {"data": {"pairs": str(folder / "pairs")}}
    tiny_model().save_pretrained(str(folder / "a" / "best"), data={"fingerprint": fingerprint}, run=run)
    tiny_model(seed=1).save_pretrained(str(folder / "b" / "best"), data={"fingerprint": "other"}, run=run)
    return folder


def config_of(folder: Path, output: Path, *models: str, **settings: Any) -> EvaluateConfig:
    checkpoints = tuple(str(folder / name / "best") for name in models or ("a",))
    values = {"data": str(folder / "data"), "tasks": FEW, **settings}
    return EvaluateConfig(checkpoints=checkpoints, output=str(output), **values)


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return evaluate(
        config_of(folder, folder / "report", "a", "b", pairs=str(folder / "pairs"), tasks=(*FEW, "retrieval"))
    )


@pytest.mark.slow
def test_each_task_has_a_score_of_each_model_and_its_references(folder: Path, results: Results) -> None:
    assert [(model.name, model.role) for model in results.models] == [
        ("a/best", "checkpoint"),
        ("a/best, untrained", "untrained"),
        ("b/best", "checkpoint"),
        ("b/best, untrained", "untrained"),
    ]
    assert {task.name for task in results.tasks} == {*FEW, "retrieval"}
    assert {(score.task, score.model) for score in results.scores} == {
        (task.name, model.name) for task in results.tasks for model in results.models
    }
    assert all(score.low <= score.value <= score.high for score in results.scores)
    assert read_results(str(folder / "report")) == results
    manifest = read_manifest(str(folder / "report"), stage.KIND, verify=True)
    assert len([name for name in manifest["files"] if name.startswith("predictions/")]) == 7 * (4 + 1)
    assert not (folder / "report" / ".work").exists()


@pytest.mark.slow
def test_what_a_model_was_trained_on_is_counted_where_it_is_known(results: Results) -> None:
    leaks = {(leak.task, leak.trained_on): leak for leak in results.leaks}
    assert leaks["retrieval", "pairs of a/best"].identical == 2
    assert leaks["retrieval", "pairs of b/best"].identical is None
    assert ("retrieval", stage.OWN_SPLIT) not in leaks
    assert leaks["beta_lactamase", stage.OWN_SPLIT].identical == 0


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folder, tmp_path / "report", tasks=("beta_lactamase", "lin_mf", "subcellular_localization"))
    undisturbed = evaluate(config_of(folder, tmp_path / "whole", tasks=config.tasks))
    real, calls = predicting.predict, []

    def dying(task: Any, *arguments: Any, **settings: Any) -> Iterator[Any]:
        calls.append(task.name)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return real(task, *arguments, **settings)

    monkeypatch.setattr(predicting, "predict", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    found = evaluate(config)
    assert len(calls) <= 6 + 2 + 2  # of two threads one may end what the other's end takes away
    for one in (undisturbed, found):
        assert one.scores
    assert [(score.task, score.model, score.metrics) for score in found.scores] == [
        (score.task, score.model, score.metrics) for score in undisturbed.scores
    ]
    for comparison in compare(str(tmp_path / "whole"), str(tmp_path / "report")):
        assert comparison.difference.value == 0
        assert comparison.difference.p_value == 1


def test_a_model_that_began_with_published_encoders_is_held_against_these(tmp_path: Path) -> None:
    began, trained = tiny_model(seed=3), tiny_model(seed=4)
    began.save_encoder("protein", str(tmp_path / "esm"))
    run = {"model": {"protein": {"pretrained": str(tmp_path / "esm")}, "text": {"pretrained": None}}}
    trained.save_pretrained(str(tmp_path / "best"), run=run)
    (model,) = named_models((str(tmp_path / "best"),))
    references = {found.role: path for found, path in write_references(model, str(tmp_path / "models"), seed=0)}
    assert list(references) == ["not pretrained", "untrained"]
    hidden = {
        name: ProtCLIP.from_pretrained(path).embed_proteins("MKVLA", layer="hidden")
        for name, path in {**references, "trained": str(tmp_path / "best")}.items()
    }
    np.testing.assert_allclose(hidden["not pretrained"], began.embed_proteins("MKVLA", layer="hidden"), atol=1e-6)
    assert np.abs(hidden["trained"] - hidden["not pretrained"]).max() > 0.01
    assert np.abs(hidden["untrained"] - hidden["not pretrained"]).max() > 0.01


def test_inputs_that_are_there_stay_the_very_files_that_an_embedding_began_with(tmp_path: Path) -> None:
    write_inputs(str(tmp_path), ["MKV", "MA"], ["binds ATP"])
    paths = [str(tmp_path / name) for name in ("proteins.parquet", "texts.parquet")]
    before = [files.identity(path) for path in paths]
    write_inputs(str(tmp_path), ["MKV", "MA"], ["binds ATP"])
    assert [files.identity(path) for path in paths] == before


@pytest.mark.slow
def test_two_models_are_compared_on_the_same_rows(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate(config_of(folder, tmp_path / name, name, tasks=("beta_lactamase",)))
    (comparison,) = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert comparison.difference.value == pytest.approx(comparison.first.value - comparison.second.value)
    low, high = comparison.difference.interval
    assert low <= comparison.difference.value <= high
    answer = CliRunner().invoke(main, ["--compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert answer.exit_code == 0
    assert answer.output.splitlines()[-1].startswith("| β-lactamase activity | spearman | ")
    other = json.loads((tmp_path / "b" / "report.json").read_text())
    other["tasks"][0]["rows"]["test"] += 1
    (tmp_path / "b" / "report.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="made of other files of it"):
        list(compare(str(tmp_path / "a"), str(tmp_path / "b")))


@pytest.mark.slow
def test_heads_that_are_trained_have_a_score_of_their_own(folder: Path, tmp_path: Path) -> None:
    tasks = ("subcellular_localization", "subcellular_zero_shot")
    settings = {"tasks": tasks, "heads": ("linear", "two-layers", "few-shot", "ensemble"), "seeds": 2}
    found = evaluate(config_of(folder, tmp_path / "report", **settings))
    of_model = [score for score in found.scores if score.model == "best"]
    seeds = {score.protocol: score.num_seeds for score in of_model}
    assert [score.protocol for score in of_model if score.task == tasks[1]] == ["prompts", "ensemble"]
    (together,) = (score for score in of_model if score.protocol == "ensemble")
    assert {"penalty", "zero_shot_weight"} <= together.settings.keys()
    assert seeds["linear"] == 1
    assert seeds["two layers"] == 2
    assert seeds["5 shots, prototypes"] == 2


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"tasks": ("nonsense",)}, ConfigError, "--tasks nonsense: there is no such task; there are all, "),
        ({"data": None, "pairs": None}, ConfigError, "give --data, --pairs or both"),
        ({"tasks": ("aav",), "data": "/nowhere"}, DataError, "aav/two_vs_many.csv: is not there.* published in FLIP"),
        ({"tasks": (), "data": "/nowhere"}, DataError, "no task has its files there"),
        ({"tasks": ("retrieval",)}, ConfigError, "--tasks retrieval: there is no such task"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    settings: dict[str, Any], error: type[Exception], words: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        evaluate(config_of(folder, tmp_path / "report", **settings))
    assert not (tmp_path / "report").exists()


def test_the_list_says_what_is_there_and_what_is_missing(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "beta_lactamase").symlink_to(folder / "data" / "beta_lactamase")
    lines = CliRunner().invoke(main, ["--list", str(folder / "part")]).output.splitlines()
    place = lines.index("beta_lactamase: β-lactamase activity; spearman")
    assert lines[place + 1].startswith("  ready: train 24, valid 8, test 12 rows of 44 proteins of ")
    place = next(i for i, line in enumerate(lines) if line.startswith("aav: "))
    assert lines[place + 1].startswith("  missing: ")
    assert "licence" in lines[place + 1]


def test_proteins_that_prompts_are_not_asked_of_are_left_out_unless_an_ensemble_learns_from_them(folder: Path) -> None:
    name = "subcellular_zero_shot"
    splits = {}
    for heads in (("linear",), ("linear", "ensemble")):
        _, benchmark = benchmark_of(config_of(folder, folder / "unused", heads=heads), name)
        splits[heads] = set(benchmark.splits)
        assert {place for one in benchmark.splits.values() for place in one.proteins_NK.ravel()} == set(
            range(len(benchmark.sequences))
        )
    assert splits == {("linear",): {"test"}, ("linear", "ensemble"): {"train", "valid", "test"}}
