"""Configs from flat names, and options from their fields: a file, the command line and Python have the same."""

from __future__ import annotations

from dataclasses import MISSING

import click
import pytest
from click.testing import CliRunner

from protclip.commands.options import field_docs
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError
from protclip.fields import check_number, configured, flat_fields
from protclip.index.config import BuildConfig, IndexConfig
from protclip.index.hnsw import HnswConfig
from protclip.protanno.curate import CurateConfig
from protclip.protanno.reading import CurationConfig
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.splits import SplitConfig
from ray_jobs.curate import main as curate
from ray_jobs.embed import main as embed
from ray_jobs.index import main as index

pytestmark = pytest.mark.unit

STAGES = [(CurateConfig, curate.main), (EmbedConfig, embed.main), (BuildConfig, index.main)]


def test_flat_names_reach_the_configs_within() -> None:
    values = {"inputs": ("a.dat",), "output": "pairs", "dataset": "S", "split_by": "sequence", "shard_mb": 1.5}
    assert configured(CurateConfig, values) == CurateConfig(
        inputs=("a.dat",),
        output="pairs",
        curation=CurationConfig(
            sampling=SamplingConfig(dataset="S"), split=SplitConfig(split_by="sequence"), shard_mb=1.5
        ),
    )
    found = configured(BuildConfig, {"embeddings": "e", "output": "i", "m": 8, "recall": 0.9})
    assert found.index == IndexConfig(graph=HnswConfig(m=8), recall=0.9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": ("a",), "output": "o", "sead": 1}, "unknown setting sead; there are inputs, output, seed, dataset"),
        ({"inputs": ("a",)}, "output is missing: a string that is not empty is needed"),
        ({"inputs": ("a",), "output": "o", "seed": "1"}, "seed='1' must be a whole number"),
    ],
)
def test_what_a_file_gets_wrong_is_told(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(CurateConfig, values)


@pytest.mark.parametrize("command", [command for _, command in STAGES], ids=["curate", "embed", "index"])
def test_an_option_that_is_needed_is_named_where_it_is_missing(command: click.Command) -> None:
    needed = [option.opts[0] for option in command.params if isinstance(option, click.Option) and option.required]
    assert "--output" in needed
    for missing in needed:
        given = [word for name in needed if name != missing for word in (name, "x")]
        found = CliRunner().invoke(command, ["x", *given])
        assert (found.exit_code, f"Missing option '{missing}'" in found.output) == (2, True), found.output


@pytest.mark.parametrize(("config", "command"), STAGES, ids=["curate", "embed", "index"])
def test_a_command_has_the_names_defaults_and_words_of_its_config(config: type, command: click.Command) -> None:
    options = {option.name: option for option in command.params}
    docs = field_docs(config)
    fields = {field.name: field.default for field, _ in flat_fields(config)}
    assert set(options) - {"dry_run"} == set(fields)
    required = [word for name in fields if options[name].required for word in (*options[name].opts[-1:], "x")]
    given = command.make_context("protclip", [word for word in required if word not in ("inputs", "embeddings")]).params
    for name, default in fields.items():
        option = options[name]
        assert option.required == (default is MISSING)
        if isinstance(option, click.Option):
            assert option.opts == [f"--{name.replace('_', '-')}"]
            assert option.help == docs[name]
        if default is not MISSING:
            assert given[name] == default
    assert configured(config, {name: value for name, value in given.items() if name != "dry_run"})


def test_an_infinite_number_is_told_that_it_has_to_be_finite() -> None:
    with pytest.raises(ConfigError, match=r"^shard_mb=inf must be finite and above 0\.$"):
        check_number("shard_mb", float("inf"), above=0)
