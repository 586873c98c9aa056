"""A run's folder as a pretraining leaves it, with numbers that look like one."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from protclip import files

PAIRS = 2000


def fake_entry(epoch: int, *, steps_per_epoch: int = 400) -> dict[str, Any]:
    """An entry of the history; epoch 0 is the untrained model. Validation is best at epoch 6."""
    gc = 6.2 * math.exp(-epoch / 2) + 0.9 + 0.3 * max(0, epoch - 6)
    terms = {"gc": gc, "bsr": 2.9 - 0.03 * epoch, "pda": 1.2 * math.exp(-epoch / 4), "mlm": 2.8 - 0.05 * epoch}
    loss = terms["gc"] + 0.7 * terms["bsr"] + terms["pda"] + 0.3 * terms["mlm"]
    ways = {}
    for way, bonus in (("text_to_protein", 0.0), ("protein_to_text", 0.02)):
        found = 1 - math.exp(-epoch / 4)
        recalls = {
            f"recall@{k}": k / PAIRS + found * (share + bonus) for k, share in ((1, 0.31), (5, 0.55), (10, 0.66))
        }
        ways[way] = {**recalls, "median_rank": 1000 * math.exp(-epoch), "mrr": 0.004 + 0.4 * found}
    counts = {"num_pairs": PAIRS, "num_proteins": PAIRS - 10, "num_texts": PAIRS // 4}
    chance = {f"recall@{k}": 4 * k / PAIRS for k in (1, 5, 10)}
    valid = {"loss": loss, **terms, **counts, "chance": chance, **ways}
    train = None if epoch == 0 else {name: value - 0.1 * epoch / 8 for name, value in {"loss": loss, **terms}.items()}
    return {
        "epoch": epoch,
        "step": epoch * steps_per_epoch,
        "seconds": 1.5 + 620.0 * epoch,
        "train": train,
        "valid": valid,
    }


def fake_step(step: int, *, steps_per_epoch: int = 400, total_steps: int = 3200) -> dict[str, Any]:
    """A logged step."""
    generator = np.random.default_rng(step)
    terms = {
        "gc": 6.2 * math.exp(-step / 1200) + 0.9 + 0.15 * generator.standard_normal(),
        "bsr": 2.9 - 0.03 * step / 400 + 0.05 * generator.standard_normal(),
        "pda": 1.2 * math.exp(-step / 1600) + 0.05 * generator.standard_normal(),
        "mlm": 2.8 - 0.05 * step / 400 + 0.05 * generator.standard_normal(),
    }
    return {
        "step": step,
        "epoch": (step - 1) // steps_per_epoch,
        "loss": terms["gc"] + 0.7 * terms["bsr"] + terms["pda"] + 0.3 * terms["mlm"],
        **terms,
        "learning_rate": 1e-5 * min(step / 96, (total_steps - step) / (total_steps - 96)),
        "grad_norm": 1.4 + abs(generator.standard_normal()) * (9 if step % 1000 == 0 else 0.5),
        "tokens_per_s": 182_000 + 4_000 * generator.standard_normal(),
        "padding_share": 0.06 + 0.01 * generator.random(),
        "wait_share": 0.02 * generator.random(),
        "memory_gb": 61.5 + (2.0 if step > 800 else 0.0),
        "skipped": int(step == 1000),
    }


def write_fake_run(run_dir: str, *, epochs: int = 8, finished: bool = True) -> None:
    """config.yaml, metrics.json and steps.jsonl of that many epochs, with every fifth step logged."""
    history = [fake_entry(epoch) for epoch in range(epochs + 1)]
    metrics: dict[str, Any] = {"history": history}
    if finished:
        best = min(history[1:], key=lambda entry: entry["valid"]["loss"])
        metrics |= {"valid": best["valid"], "untrained": history[0]["valid"], "best_epoch": best["epoch"]}
        metrics |= {"steps": history[-1]["step"], "seconds": 5123.4}
    files.write_json(files.join(run_dir, "metrics.json"), metrics)
    with files.atomic_write(files.join(run_dir, "config.yaml")) as stream:
        stream.write(b"run_dir: <somewhere> & else\nseed: 0\nepochs: 8\n")
    with files.atomic_write(files.join(run_dir, "steps.jsonl")) as stream:
        for step in range(5, history[-1]["step"] + 1, 5):
            stream.write(json.dumps(fake_step(step)).encode() + b"\n")
