"""What bfloat16 costs in training: the losses and the retrieval of float32, on a synthetic proteome. CPU.

    python benchmarks/precision.py            three seeds, 200 steps of each; ten minutes on 2 cores
    python benchmarks/precision.py --quick    one seed, 40 steps; about a minute

The same weights on the same batches in float32 and in bfloat16, all objectives, as ``objectives.py`` trains them. The
losses are compared as means of ten steps, which are what one looks at. Beside them stands float32 with the rows of each
batch turned round, which is the same but for the rounding: so far do two runs in float32 drift apart. Retrieval is of
proteins that no step has seen, computed in the dtype of the training. A processor without instructions for bfloat16
computes the same, more slowly.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from motif_proteome import motif_proteome
from objectives import ALL, HELDOUT_PROTEINS, MODEL, TRAIN_PROTEINS, fit, look_at_neighbours, retrieval
from report import Claim, write_results

from protclip.data.tokenize import biotexts, tokenize_pairs
from protclip.inputs import Dtype
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.trained_model import ProtCLIP

SEEDS, STEPS, QUICK_STEPS = 3, 200, 40
WINDOW = 10
"""Steps whose losses are averaged."""
BAND = 0.02
"""How far the means may be from those of float32, relatively."""
OTHER_ORDER = "float32, batches backwards"
SETTINGS: dict[str, Dtype] = {"float32": "float32", OTHER_ORDER: "float32", "bfloat16": "bfloat16"}
MEASURES = ("recall@1", "recall@10", "mrr")


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps; about a minute")
    quick = parser.parse_args().quick
    steps = QUICK_STEPS if quick else STEPS
    jobs = [(seed, name) for seed in range(1 if quick else SEEDS) for name in SETTINGS]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = dict(zip(jobs, pool.map(run, *zip(*jobs, strict=True), [steps] * len(jobs)), strict=True))

    apart = {
        (seed, name): band(runs[seed, "float32"]["losses"], found["losses"]) for (seed, name), found in runs.items()
    }
    farthest = {name: max(value for (_, of), value in apart.items() if of == name) for name in SETTINGS}
    claims = [
        Claim(claim="bf16_losses_from_fp32", value=farthest["bfloat16"], target=BAND, unit="relative, at most"),
        Claim(claim="fp32_losses_from_fp32", value=farthest[OTHER_ORDER], unit="relative"),
        *(spread_claim(name, runs) for name in MEASURES),
    ]
    lines = [
        f"{TRAIN_PROTEINS} proteins, {steps} steps of all objectives; losses are means of {WINDOW} steps, retrieval is "
        f"text to protein among {HELDOUT_PROTEINS} held-out pairs.",
        "",
        "| seed | setting | first loss | last loss | farthest from float32 | " + " | ".join(MEASURES) + " |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (seed, name), found in runs.items():
        losses = windows(found["losses"])
        distance = "–" if name == "float32" else f"{apart[seed, name]:.2%}"
        measures = " | ".join(f"{found[measure]:.3f}" for measure in MEASURES)
        lines.append(f"| {seed} | {name} | {losses[0]:.3f} | {losses[-1]:.3f} | {distance} | {measures} |")
    figures: dict[str, Any] = {"runs": [{"seed": seed, "setting": name, **run} for (seed, name), run in runs.items()]}
    write_results("precision", claims, figures, "\n".join(lines), quick=quick)


def run(seed: int, name: str, steps: int) -> dict[str, Any]:
    """Train in one setting: the loss of each step, and retrieval afterwards."""
    torch.set_num_threads(1)
    dtype = SETTINGS[name]
    train = motif_proteome(TRAIN_PROTEINS, seed=seed)
    heldout = motif_proteome(HELDOUT_PROTEINS, seed=seed, first=TRAIN_PROTEINS)
    texts, proteins = build_text_tokenizer(MODEL, biotexts(train.pairs)), build_protein_tokenizer(MODEL)
    network = build_model(MODEL, build_architecture(MODEL, texts, ALL), seed=seed, precision=dtype)
    look_at_neighbours(network.protein_encoder)
    rows, heldout_rows = (
        tokenize_pairs(pairs, proteins, texts, properties=True) for pairs in (train.pairs, heldout.pairs)
    )
    losses = fit(network, rows, seed=seed, num_steps=steps, backwards=name == OTHER_ORDER)
    network.eval()
    return {"losses": losses, **retrieval(ProtCLIP(network, proteins, texts, dtype=dtype), heldout_rows)}


def windows(losses: list[float]) -> np.ndarray:
    """Means of WINDOW steps, one after the other."""
    means: np.ndarray = np.reshape(losses, (-1, WINDOW)).mean(1)
    return means


def band(exact: list[float], found: list[float]) -> float:
    """The largest relative distance of a mean."""
    wanted = windows(exact)
    return float((np.abs(windows(found) - wanted) / wanted).max())


def spread_claim(name: str, runs: dict[tuple[int, str], dict[str, Any]]) -> Claim:
    """How far the mean of bfloat16's seeds is from that of float32's, and float32's standard deviation."""
    exact, found = ([run[name] for (_, of), run in runs.items() if of == wanted] for wanted in ("float32", "bfloat16"))
    distance = abs(float(np.mean(found)) - float(np.mean(exact)))
    spread = float(np.std(exact, ddof=1)) if len(exact) > 1 else None
    return Claim(claim=f"bf16_{name}_from_fp32", value=distance, target=spread, unit="at most float32's spread")


if __name__ == "__main__":
    main()
