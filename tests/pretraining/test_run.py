"""A whole pretraining in this process, without Ray: its folder, its going on, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pairs_folders import row, write_pairs
from safetensors.torch import load_file
from tiny_model import random_pairs

from protclip.config_file import load_config
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer, biotexts, tokenize_pairs
from protclip.model.build import build_text_tokenizer
from protclip.pretraining.run import Pretraining, pretrain
from protclip.protanno.shards import PROPERTIES, read_pairs
from protclip.train import run as run_module
from protclip.train.checkpoints import committed
from protclip.trained_model import ProtCLIP
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit

SIZE, BATCHES, EPOCHS = 8, 3, 2


@pytest.fixture(scope="module")
def pairs() -> Any:
    return random_pairs(SIZE * BATCHES + 40)


def job(folder: Path, pairs: Any, *, valid: Any = None, **settings: Any) -> Pretraining:
    """Of a tiny model, with the last 40 pairs to measure on unless others are given."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    values = {
        "run_dir": str(folder / "run"),
        "epochs": EPOCHS,
        "data": {"pairs": "given", "lanes": 1},
        "model": {
            "projection_dim": 24,
            "protein": {"max_tokens": 64, "config": shape},
            "text": {"max_tokens": 32, "config": {**shape, "vocab_size": 120}},
        },
        "objectives": {"num_prototypes": 16},
        "batch": {"global_batch_size": SIZE},
        "optimizer": {"learning_rate": 1e-2},
        "precision": "float32",
        "log_every_s": 0.0,
        "trackers": [],
        **settings,
    }
    (folder / "config.yaml").write_text(json.dumps(values))
    config = load_config(str(folder / "config.yaml"))
    if not (folder / "pairs").exists():
        held_out = pairs.slice(SIZE * BATCHES) if valid is None else valid
        columns = ("accession", "sequence", *PROPERTIES)
        rows = [row(Entry(**{name: one[name] for name in columns})) for one in held_out.to_pylist()]
        write_pairs(folder / "pairs", {"valid-00000-of-00001": rows})
    return Pretraining(
        config=config,
        batches_per_epoch=[BATCHES] * EPOCHS,
        valid=read_pairs(str(folder / "pairs")).row_groups("valid"),
        text_tokenizer_json=build_text_tokenizer(config.model, biotexts(pairs)).json,
        data={"fingerprint": "of the test"},
    )


def run(told: Pretraining, pairs: Any, *, preemption: Any = lambda: None) -> str | None:
    def stream(protein: ProteinTokenizer, text: TextTokenizer, epoch: int, first_batch: int) -> Iterator[pa.Table]:
        tokens = tokenize_pairs(pairs.slice(0, SIZE * BATCHES), protein, text, properties=True)
        for batch in range(first_batch, BATCHES):
            yield tokens.slice((batch + epoch) % BATCHES * SIZE, SIZE)

    return pretrain(told, stream=stream, device=torch.device("cpu"), preemption=preemption)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    *_, last = committed(str(folder / "run"))
    return load_file(f"{last}/model.safetensors")


def test_a_run_leaves_checkpoints_metrics_steps_and_a_report(tmp_path: Path, pairs: Any) -> None:
    assert run(job(tmp_path, pairs), pairs) is None
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [(entry["epoch"], entry["step"]) for entry in metrics["history"]] == [(0, 0), (1, 3), (2, 6)]
    assert metrics["history"][0]["train"] is None
    last = metrics["history"][2]
    assert last["train"].keys() == {"loss", "gc", "bsr", "pda", "mlm"}
    assert last["train"].keys() <= last["valid"].keys()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert (folder / "report.html").exists()
    record = json.loads((folder / "checkpoints" / "step-000000006" / "manifest.json").read_text())
    assert record["metrics"] == {name: last[name] for name in ("epoch", "train", "valid")}
    assert record["data"] == {"fingerprint": "of the test"}


def test_a_run_over_prefixes_is_measured_over_them_and_its_checkpoint_says_so(tmp_path: Path, pairs: Any) -> None:
    first, alone = {}, {"mlm": 0.0, "bsr": 0.0, "pda": 0.0}
    for name, prefixes in (("plain", []), ("short", [8, 24])):
        (tmp_path / name).mkdir()
        run(job(tmp_path / name, pairs, objectives={**alone, "gc_prefixes": prefixes}, epochs=1), pairs)
        first[name] = json.loads((tmp_path / name / "run" / "metrics.json").read_text())["history"][0]["valid"]
    assert first["short"]["text_to_protein"] == first["plain"]["text_to_protein"]  # the same first weights
    assert first["short"]["gc"] != first["plain"]["gc"]
    *_, last = committed(str(tmp_path / "short" / "run"))
    assert ProtCLIP.from_pretrained(last).trained_dimensions == (8, 24)


@pytest.mark.slow
def test_a_run_that_goes_on_ends_with_the_same_weights(
    tmp_path: Path, pairs: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    undisturbed.mkdir()
    stopped.mkdir()
    run(job(undisturbed, pairs), pairs)
    asked = iter(range(9))

    def preemption() -> object | None:
        if next(asked) == 1:
            raise KeyboardInterrupt
        return "a node goes"

    told = job(stopped, pairs)
    monkeypatch.setattr(run_module, "LOOK_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        run(told, pairs, preemption=preemption)
    assert [path.rsplit("-")[-1] for path in committed(str(stopped / "run"))] == ["000000001"]
    assert "a node will be taken away: a checkpoint is made after step 1" in capsys.readouterr().out
    assert run(told, pairs) is None
    assert "going on after step 1, in epoch 1" in capsys.readouterr().out
    wanted, found = weights(undisturbed), weights(stopped)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    histories = [json.loads((folder / "run" / "metrics.json").read_text()) for folder in (undisturbed, stopped)]
    for history in histories:
        for entry in history["history"]:
            del entry["seconds"]
    assert histories[0] == histories[1]


def test_pairs_that_are_no_negatives_of_each_other_end_the_run(tmp_path: Path, pairs: Any) -> None:
    same = pa.concat_tables([pairs.slice(0, 1)] * (SIZE * BATCHES))
    found = run(job(tmp_path, pairs, valid=pairs), same)
    assert re.match(r"the contrast was exactly 0 in all 3 steps of epoch 1: .* share", found or "")
    assert committed(str(tmp_path / "run")) == []


def test_validation_pairs_that_are_no_negatives_of_each_other_end_the_run_before_it_trains(
    tmp_path: Path, pairs: Any
) -> None:
    told = job(tmp_path, pairs, valid=pa.concat_tables([pairs.slice(0, 1)] * 9))
    assert re.match(r"the contrast was exactly 0 in the 9 validation pairs: .* share", run(told, pairs) or "")
    assert not (tmp_path / "run" / "metrics.json").exists()
