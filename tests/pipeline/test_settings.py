"""A pipeline's file: what its sections mean, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from protclip.errors import ConfigError
from protclip.pipeline.settings import PipelineConfig, load_pipeline, plain
from ray_jobs.pretrain.run import find_config

pytestmark = pytest.mark.unit

CURATE: dict[str, Any] = {"inputs": ["/data/a.dat"]}
PRETRAIN: dict[str, Any] = {"config": "tiny_cpu"}


def load(path: Path, values: Any, *overrides: str) -> PipelineConfig:
    (path / "p.yaml").write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return load_pipeline(str(path / "p.yaml"), overrides, find_config, str)


def refusal(path: Path, values: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, values, *overrides)
    return str(caught.value).replace(str(path / "p.yaml"), "FILE")


def test_each_stage_reads_what_the_ones_before_it_make(tmp_path: Path) -> None:
    text = "folder: s3://b/r\ncurate: {inputs: [/data/a.dat]}\npretrain: {config: tiny_cpu}\nevaluate:\nembed:\n"
    config = load(tmp_path, text + "questions:\nindex:\nserve:\n")
    assert list(config.stages()) == ["curate", "pretrain", "evaluate", "embed", "questions", "index", "serve"]
    assert config.curate and config.pretrain and config.evaluate and config.embed and config.questions and config.index
    assert (config.curate.inputs, config.curate.output) == (("/data/a.dat",), "s3://b/r/pairs")
    assert (config.pretrain.data.pairs, config.pretrain.run_dir) == ("s3://b/r/pairs", "s3://b/r/run")
    assert config.evaluate.checkpoints == ("s3://b/r/run/best",)
    assert (config.evaluate.pairs, config.evaluate.output) == ("s3://b/r/pairs", "s3://b/r/evaluation")
    for stage in (config.embed, config.questions):
        assert (stage.inputs, stage.checkpoint) == (("s3://b/r/pairs",), "s3://b/r/run/best")
    assert (config.embed.content, config.embed.output) == (None, "s3://b/r/embeddings")
    assert (config.questions.content, config.questions.output) == ("text", "s3://b/r/questions")
    assert (config.index.embeddings, config.index.output) == ("s3://b/r/embeddings", "s3://b/r/index")
    assert config.index.queries == ("s3://b/r/questions",)


def test_a_section_may_name_other_inputs_and_leave_stages_out(tmp_path: Path) -> None:
    embed = {"inputs": ["/my.fasta"], "checkpoint": "published", "part_rows": 8}
    config = load(tmp_path, {"folder": "/r", "embed": embed, "index": {"m": 8, "recall": 0.9}})
    assert list(config.stages()) == ["embed", "index"]
    assert config.embed and config.index
    assert (config.embed.inputs, config.embed.checkpoint, config.embed.part_rows) == (("/my.fasta",), "published", 8)
    assert (config.index.index.graph.m, config.index.index.recall, config.index.queries) == (8, 0.9, ())


def test_a_training_is_a_ready_configuration_with_settings_over_it(tmp_path: Path) -> None:
    pretrain = {**PRETRAIN, "epochs": 7, "model": {"protein": {"config": {"hidden_size": 32}}}}
    values = {"folder": "/r", "curate": CURATE, "pretrain": pretrain}
    config = load(tmp_path, values, "pretrain.workers.num=4", "folder=/other").pretrain
    assert config is not None
    assert (config.epochs, config.workers.num, config.run_dir) == (7, 4, "/other/run")
    assert config.model.protein.config == {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"folder": "/r", "curate": CURATE, "train": {}}, "FILE: unknown section 'train'; there are folder, curate,"),
        ({"folder": "/r", "curate": {**CURATE, "sead": 1}}, "FILE, curate: unknown setting sead; there are inputs,"),
        ({"folder": "/r", "curate": {**CURATE, "seed": "x"}}, "FILE, curate: seed='x' must be a whole number"),
        ({"folder": "/r", "curate": {"inputs": "a.dat"}}, "FILE, curate: inputs='a.dat' must be a list of a string"),
        (
            {"folder": "/r", "curate": {**CURATE, "output": "/p"}},
            "curate: output is not set here, it is pairs in",
        ),
        (
            {"folder": "/r", "curate": {**CURATE, "overwrite": True}},
            "overwrite is not set here, --overwrite of",
        ),
        ({"folder": "/r", "curate": CURATE, "pretrain": {"config": "tiny"}}, "config 'tiny' is neither a file nor one"),
        (
            {"folder": "/r", "curate": CURATE, "pretrain": {**PRETRAIN, "epoch": 3}},
            "FILE, pretrain: unknown key epoch; there are run_dir, epochs",
        ),
        ({"folder": "/r", "curate": CURATE, "pretrain": {"run_dir": "/x"}}, "pretrain: run_dir is not set here, it is"),
        ({"folder": "/r", "embed": None}, "FILE, embed: inputs is missing: a list of a string that is not empty"),
        ({"folder": "/r", "evaluate": None}, "FILE, evaluate: checkpoints is missing"),
        ({"folder": "/r", "curate": CURATE, "embed": 3}, "FILE: embed=3 must be a mapping of settings; {} for none"),
        ({"folder": "/r", "curate": CURATE, "serve": None}, "FILE: serve has nothing to serve; name the stage index"),
        (
            {"folder": "/r", "index": {"embeddings": "/e"}, "serve": {"port": 0}},
            "serve.port=0 must be at least 1",
        ),
        ({"folder": "/r"}, "FILE: names no stage; there are curate, pretrain,"),
        ({"curate": CURATE}, "FILE: folder=None must be the path or URL"),
        ({"folder": "", "curate": CURATE}, "FILE: folder='' must be the path or URL"),
        ("- a", "FILE: holds no settings; a mapping of keys is needed"),
        ("a: [", "FILE: is not YAML"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(tmp_path: Path, values: Any, words: str) -> None:
    assert words in refusal(tmp_path, values)


@pytest.mark.parametrize(
    "url", ["s3://AKIA:open-sesame@bucket/a.dat", "https://host/a.dat?X-Amz-Signature=open-sesame&x=1"]
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    message = refusal(tmp_path, {"folder": "/r", "curate": {"inputs": [url]}})
    assert "FILE, curate.inputs.0: " in message
    assert "a.dat: the URL holds a password" in message
    assert "sesame" not in message


def test_the_example_is_a_whole_pipeline() -> None:
    path = Path(__file__).parents[2] / "examples" / "pipeline.yaml"
    config = load_pipeline(str(path), (), find_config, str)
    assert list(config.stages()) == ["curate", "pretrain", "evaluate", "embed", "questions", "index"]


def test_settings_are_told_without_what_has_its_default(tmp_path: Path) -> None:
    config = load(tmp_path, {"folder": "/r", "curate": {**CURATE, "seed": 3, "valid_fraction": 0.2}})
    assert plain(config.curate) == {
        "inputs": ["/data/a.dat"],
        "output": "/r/pairs",
        "curation": {"seed": 3, "split": {"valid_fraction": 0.2}},
    }
