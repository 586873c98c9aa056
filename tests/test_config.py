"""Settings: overrides, unknown keys, and values that cannot work together."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

from protclip.config_file import config_yaml, forbidden_changes, load_config, read_yaml
from protclip.errors import ConfigError

pytestmark = pytest.mark.unit

TINY = str(resources.files("ray_jobs.pretrain") / "configs" / "tiny_cpu.yaml")


def test_every_ready_config_loads() -> None:
    for path in (resources.files("ray_jobs.pretrain") / "configs").iterdir():
        load_config(str(path))


def test_overrides_reach_nested_settings_and_survive_a_round_trip(tmp_path: Path) -> None:
    config = load_config(TINY, ["workers.num=4", "optimizer.learning_rate=1e-3", "data.pairs=s3://bucket/pairs"])
    assert config.workers.num == 4
    assert config.optimizer.learning_rate == 0.001
    assert config.data.pairs == "s3://bucket/pairs"
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(config))
    assert load_config(str(path)) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nonsense=1", "unknown key nonsense; there are run_dir, epochs, .*, data"),
        ("workers.nonsense=1", "unknown key workers.nonsense; there are num, min"),
        ("model.text.nonsense=1", "unknown key model.text.nonsense; there are pretrained, "),
        ("epochs=true", "epochs=True: a number is needed"),
        ("optimizer.learning_rate=yes", "optimizer.learning_rate=True: a number is needed"),
        ("workers.use_gpu=1", "workers.use_gpu=1: true and false are allowed"),
        ("trackers=tensorboard", r"trackers='tensorboard' must be a list, such as \[tensorboard\]"),
        ("epochs=many", "epochs='many'"),
        ("epochs=0", "epochs=0 must be at least 1"),
        ("epochs=999999999", "epochs=999999999 must be at least 1 and at most 100000"),
        ("workers.num=3", r"workers.num=3 does not divide data.lanes=8; allowed: \[1, 2, 4, 8\]"),
        ("data.lanes=7", "data.lanes=7 does not divide batch.global_batch_size=64; nearest batches: 63 or 70"),
        ("optimizer.learning_rate=0", "learning_rate=0.0 must be above 0"),
        ("model.protein.pretrained=x", "either pretrained"),
        ("objectives.pda=-1", "objectives.pda=-1.0 must be at least 0; 0 switches the objective off"),
        ("objectives.mask_fraction=0.6", "mask_fraction=0.6 must be above 0 and at most 0.5"),
        ("objectives.min_segment=11", "min_segment=11 and max_segment=10"),
        ("objectives.threshold=2", "threshold=2.0 must be at least 0 and at most 1"),
        ("objectives.gumbel_temperature=0", "gumbel_temperature=0.0 must be above 0"),
        ("objectives.num_prototypes=0", "num_prototypes=0 must be at least 1"),
        ("selection.metric=recall", "'loss', 'text_to_protein_recall_at_1', .* 'protein_to_text_mrr'"),
        ("selection={metric: loss, mode: max}", "mode=max would keep the worst epochs .*metric=loss; give .*mode=min"),
        ("selection={metric: protein_to_text_mrr}", "give selection.mode=max"),
        ("objectives.masked_passes=both", "'separate' or 'shared'"),
        ("epochs", "not of the form"),
        ("epochs.x=1", "epochs is a single value"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TINY, [override])


def test_files_that_hold_no_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("just text")
    with pytest.raises(ConfigError, match="holds no settings"):
        load_config(str(path))
    path.write_text("a: [1")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(str(path))
    path.write_text("epochs: 2026-13-45")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(str(path))


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {seed: 1}\nover: {<<: *base, seed: 2}\n")
    assert read_yaml(str(path))["over"] == {"seed": 2}
    path.write_text("data: {lanes: 4}\nseed: 1\ndata: {pairs: a}\n")
    with pytest.raises(ConfigError, match=r"is not YAML .the key data comes twice"):
        read_yaml(str(path))


def test_an_older_run_goes_on_as_it_selected_and_sampled_and_no_other_way(tmp_path: Path) -> None:
    values = yaml.safe_load(config_yaml(load_config(TINY)))
    # As earlier versions wrote them.
    del values["selection"], values["data"]["text_sampling"], values["objectives"]["gc_prefixes"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    old = load_config(str(tmp_path / "config.yaml"))
    as_before = ["selection={metric: loss, mode: min}", "data.text_sampling=none"]
    assert forbidden_changes(old, load_config(TINY, as_before)) == []
    assert forbidden_changes(old, load_config(TINY)) == [
        "data.text_sampling: none there, properties here",
        "selection.metric: loss there, text_to_protein_recall_at_10 here",
        "selection.mode: min there, max here",
    ]


def test_prefixes_are_a_list_and_a_run_goes_on_with_no_others(tmp_path: Path) -> None:
    width = load_config(TINY).model.projection_dim
    prefixes = load_config(TINY, [f"objectives.gc_prefixes=[8, {width}]"])
    assert prefixes.objectives.gc_prefixes == (8, width)
    (tmp_path / "config.yaml").write_text(config_yaml(prefixes))
    assert load_config(str(tmp_path / "config.yaml")) == prefixes
    (change,) = forbidden_changes(load_config(TINY), prefixes)
    assert change == f"objectives.gc_prefixes: () there, (8, {width}) here"
