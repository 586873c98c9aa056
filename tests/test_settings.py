"""Every field of every settings class refuses what cannot work when it is created."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from protclip.config import (
    BatchConfig,
    DataConfig,
    EncoderConfig,
    ModelConfig,
    ObjectivesConfig,
    OptimizerConfig,
    PretrainConfig,
    SelectionConfig,
    WorkersConfig,
)
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError
from protclip.index.config import BuildConfig, IndexConfig
from protclip.index.hnsw import HnswConfig
from protclip.pipeline.settings import SwapConfig
from protclip.protanno.curate import CurateConfig
from protclip.protanno.reading import CurationConfig
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.splits import SplitConfig
from serve.settings import AppArgs, Limits, Sharding, UserConfig

pytestmark = pytest.mark.unit

NAN, INF = math.nan, math.inf
COUNT = [0, -1, 1.5, "8", None, True]
"""What no number of things may be."""
POSITIVE = [0.0, -1.0, NAN, INF, "1", None]
NOT_NEGATIVE = [-1e-9, NAN, INF, -INF, "0", None]
SWITCH = [None, 1, "yes"]
CHOICE = ["nonsense", "", None, 1]
PATH = ["", " ", None, 3]

ENCODER = EncoderConfig(config={}, max_tokens=64)
GOOD: dict[type, dict[str, Any]] = {
    DataConfig: {"pairs": "pairs"},
    EncoderConfig: {"config": {}, "max_tokens": 64},
    ModelConfig: {"protein": ENCODER, "text": ENCODER},
    ObjectivesConfig: {},
    BatchConfig: {},
    OptimizerConfig: {},
    WorkersConfig: {},
    SelectionConfig: {},
    PretrainConfig: {
        "run_dir": "run",
        "data": DataConfig(pairs="pairs"),
        "model": ModelConfig(protein=ENCODER, text=ENCODER),
    },
    CurationConfig: {},
    SamplingConfig: {},
    SplitConfig: {},
    IndexConfig: {},
    HnswConfig: {},
    CurateConfig: {"inputs": ("a.dat",), "output": "pairs"},
    EmbedConfig: {"inputs": ("a.fasta",), "checkpoint": "model", "output": "embeddings"},
    BuildConfig: {"embeddings": "embeddings", "output": "index"},
    SwapConfig: {},
    AppArgs: {"checkpoint": "/checkpoint", "keys": "none"},
    UserConfig: {"indexes": {"default": "/index"}},
    Sharding: {"index": "/index", "num_shards": 2},
    Limits: {},
}
BAD: dict[type, dict[str, list[Any]]] = {
    DataConfig: {"pairs": PATH, "lanes": COUNT, "text_sampling": [None, "all", True]},
    SelectionConfig: {"metric": [None, "auc", 1], "mode": [None, "up", "max"]},
    EncoderConfig: {"pretrained": ["", 3, "both"], "config": [None, "x", 3], "max_tokens": [*COUNT, 2]},
    ModelConfig: {
        "protein": [None, {}, "esm"],
        "text": [None, {}, "bert"],
        "projection_dim": COUNT,
        "attention": CHOICE,
        "activation_checkpointing": SWITCH,
    },
    ObjectivesConfig: {
        "gc_prefixes": [None, 64, [64], (0, 512), (-1, 512), (512, 64), (64, 64, 512), (64.0, 512), (True, 512)],
        "mlm": NOT_NEGATIVE,
        "bsr": NOT_NEGATIVE,
        "pda": NOT_NEGATIVE,
        "masked_passes": CHOICE,
        "mask_fraction": [0.0, 0.51, NAN, INF, None],
        "min_segment": [*COUNT, 11],
        "max_segment": [*COUNT, 4],
        "pda_negatives": CHOICE,
        "num_prototypes": COUNT,
        "gumbel_temperature": POSITIVE,
        "threshold": [-0.1, 1.1, NAN, INF, None],
        "segment_window": [*COUNT, 2],
    },
    BatchConfig: {"global_batch_size": [*COUNT, 1], "micro_batches": COUNT},
    OptimizerConfig: {
        "learning_rate": POSITIVE,
        "protein_encoder_ratio": [*POSITIVE, 1.1],
        "weight_decay": NOT_NEGATIVE,
        "warmup_fraction": [*NOT_NEGATIVE, 1.0],
        "decay": CHOICE,
        "decay_by": CHOICE,
        "max_grad_norm": [0.0, -1.0, NAN, "1", None],
    },
    WorkersConfig: {
        "num": COUNT,
        "min": [0, -1, 2, 0.5, "1"],
        "strategy": CHOICE,
        "use_gpu": SWITCH,
        "resources": [{"CPU": -1.0}, {"CPU": NAN}, {"CPU": INF}, {"": 1.0}, {"CPU": "1"}, None, 2],
    },
    PretrainConfig: {
        "run_dir": PATH,
        "seed": [-1, 2**63, 1.5, "0", None],
        "epochs": COUNT,
        "data": [None, {}],
        "model": [None, {}],
        "objectives": [None, {}],
        "batch": [None, BatchConfig(global_batch_size=100)],
        "optimizer": [None, {}],
        "workers": [None, WorkersConfig(num=3)],
        "precision": [*CHOICE, "float16"],
        "valid_pairs": [*COUNT, 1],
        "selection": [None, "loss", {}],
        "early_stop_epochs": [0, -1, 1.5, "4"],
        "max_skipped_steps": [-1, 1.5, None],
        "checkpoint_every_s": NOT_NEGATIVE,
        "keep_checkpoints": COUNT,
        "max_failures": [-1, 1.5, None],
        "log_every_s": NOT_NEGATIVE,
        "trackers": [("comet",), "tensorboard", None, (None,)],
        "log_rows": SWITCH,
    },
    CurationConfig: {
        "seed": [-1, 2**63, 10**400, 1.5, None],
        "sampling": [None, {}],
        "deduplicate": SWITCH,
        "split": [None, {}],
        "shard_mb": POSITIVE,
        "row_group_rows": COUNT,
    },
    SamplingConfig: {
        "dataset": CHOICE,
        "coverage_exponent": NOT_NEGATIVE,
        "existence_exponent": NOT_NEGATIVE,
        "min_coverage": [-0.1, 1.1, NAN, None],
        "max_existence": [0, 6, 2.5, None],
        "draw": CHOICE,
    },
    SplitConfig: {
        "split_by": [*CHOICE, "uniref50", "uniref50=", "minhash=clusters.tsv"],
        "valid_fraction": [-0.1, 1.0, 0.95, NAN, None],
        "test_fraction": [-0.1, 1.0, 0.95, NAN, None],
    },
    IndexConfig: {
        "graph": [None, {}],
        "shard_rows": [*COUNT, 2**31],
        "recall": [-0.1, 1.1, NAN, None],
        "ef_search": [0, -1, 100_001, 1.5],
        "graph_dimension": [-1, 65_537, 1.5, "64", True],
        "max_stale": [-0.1, 1.1, NAN, None],
    },
    HnswConfig: {"m": [*COUNT, 1, 257], "ef_construction": [*COUNT, 100_001], "seed": [-1, 2**63, 10**400, 1.5, None]},
    CurateConfig: {
        "inputs": [None, "a.dat", ("",)],
        "output": PATH,
        "curation": [None, {}],
        "max_bad_fraction": [-0.1, 1.1, NAN, None],
        "max_textless_fraction": [-0.1, 1.1, NAN, None],
        "previous": ["", 3],
        "overwrite": SWITCH,
    },
    EmbedConfig: {
        "inputs": [None, "a.fasta", ("",)],
        "checkpoint": PATH,
        "output": PATH,
        "content": ["nonsense", "", 1],
        "id_column": ["", 1],
        "column": ["", 1],
        "long": ["nonsense", "", 1],
        "layer": CHOICE,
        "dimensions": [0, -1, 1.5, "8", True],
        "residues": SWITCH,
        "format": CHOICE,
        "precision": CHOICE,
        "dtype": ["nonsense", "", 1],
        "deduplicate": SWITCH,
        "part_rows": [0, -1, 1.5, "8"],
        "previous": ["", 3],
        "workers": [0, -1, 1.5, "", "0-2", "3-2", "many"],
        "use_gpu": SWITCH,
        "overwrite": SWITCH,
    },
    BuildConfig: {
        "embeddings": PATH,
        "output": PATH,
        "model": ["", 1],
        "ids": ["", 1, "ids.txt"],
        "max_bad_fraction": [-0.1, 1.1, NAN, None],
        "previous": ["", 3],
        "queries": [None, "texts", ("",)],
        "index": [None, {}],
        "overwrite": SWITCH,
    },
    SwapConfig: {"name": PATH, "port": [0, 65_536, 1.5, "8000", True]},
    AppArgs: {
        "checkpoint": ["", None],
        "keys": ["", None],
        "limits": [None, {"nonsense": 1}],
        "allowed_hosts": [None, "lab", [""]],
        "cors_origins": [None, "*", ["lab.example.org"], ["https://lab.example.org/page"]],
        "request_log": ["", 1],
        "sequences": [""],
        "sharding": [3, {"index": ""}, {"index": "/index", "num_shards": 0}],
        "log_queries": [None, 2, "nonsense"],
        "num_replicas": [0, -1, 1.5, None, {"max_replicas": 0}, {"min_replicas": 2, "max_replicas": 1}],
        "num_cpus": [-1, NAN, INF, None],
        "num_gpus": [-1, NAN, INF, None],
        "device": [*CHOICE, "cuda"],
        "dtype": ["nonsense", "", 1],
        "threads": [0, -1, 1.5],
        "tokens_per_batch": [0, -1, 1.5],
        "max_waiting_tokens": [0, -1, 1.5],
        "stuck_after_s": [0, -1, NAN, INF, None],
    },
    UserConfig: {
        "indexes": [
            None,
            {},
            {"default": ""},
            {"": "/index"},
            {"a/b": "/index"},
            {"a" * 65: "/index"},
            {"default": None},
        ]
    },
    Sharding: {
        "index": ["", None],
        "num_shards": [0, -1, 1.5, None],
        "num_replicas": [0, -1, 1.5, None, {"max_replicas": 0}],
        "num_cpus": [-1, NAN, INF, None],
        "memory_bytes": [-1, 1.5, None],
        "max_replicas_per_node": [0, 101, 1.5],
        "num_gateways": [0, -1, 1.5, None, {"max_replicas": 0}],
    },
    Limits: {
        "body_timeout_s": [0, -1, NAN, INF, None],
        "request_timeout_s": [0, -1, NAN, INF, None],
        "explain_s": [0, -1, NAN, INF, None],
        **{
            name: [0, -1, 1.5, NAN, INF, None]
            for name in (
                "max_body_bytes",
                "max_body_values",
                "max_body_fields",
                "max_held_bytes",
                "max_items",
                "max_sequence_length",
                "max_text_length",
                "max_filter_length",
                "max_k",
            )
        },
    },
}


CASES = [pytest.param(kind, name, id=f"{kind.__name__}.{name}") for kind, table in BAD.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_bad_values_are_refused_by_name_when_the_settings_are_created(kind: type, name: str) -> None:
    good = GOOD[kind]
    kind(**good)
    for value in BAD[kind][name]:
        with pytest.raises((ConfigError, ValidationError), match=rf"\b{name}\b"):
            kind(**{**good, name: value})


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_every_field_has_values_that_it_refuses(kind: Any) -> None:
    names = set(kind.model_fields) if hasattr(kind, "model_fields") else {field.name for field in fields(kind)}
    assert set(BAD[kind]) == names


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (PretrainConfig, {"objectives": ObjectivesConfig(gc_prefixes=(64, 128))}, "ends with 128 .*projection_dim=512"),
        (SplitConfig, {"valid_fraction": 0.7, "test_fraction": 0.7}, "leave nothing to train on"),
        (PretrainConfig, {"run_dir": "s3://bucket/run", "log_rows": True}, "log_rows=True .*s3://bucket/run"),
        (WorkersConfig, {"num": 2, "min": 1, "resources": {"CPU": 0.5}}, "workers.min=1 .* whole numbers"),
        (EmbedConfig, {"content": "text", "long": "error"}, "--long error is for proteins"),
        (EmbedConfig, {"deduplicate": True, "residues": True}, "--deduplicate does not go with --residues"),
        (EmbedConfig, {"residues": True, "dimensions": 8}, "--dimensions .* does not go with --residues"),
        (EmbedConfig, {"layer": "hidden", "dimensions": 8}, "--dimensions .* does not go with --layer hidden"),
        (EmbedConfig, {"residues": True, "long": "window-mean"}, "--residues: means over windows have none"),
        (EmbedConfig, {"residues": True, "previous": "old"}, "--previous has no residues"),
        (SamplingConfig, {"dataset": "S", "draw": "each-epoch"}, "draw is of dataset D, not of S"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(kind: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**{**GOOD[kind], **values})


def test_what_may_be_switched_off_may() -> None:
    OptimizerConfig(max_grad_norm=INF)
    PretrainConfig(**GOOD[PretrainConfig], early_stop_epochs=None, max_skipped_steps=0, max_failures=0, trackers=())
    SplitConfig(valid_fraction=0.0, test_fraction=0.0)
    SplitConfig(split_by="uniref50=clusters.tsv")
    EmbedConfig(**GOOD[EmbedConfig], workers=2, part_rows=1)
